"""`realtime.events.payload`: what may be published, and its JSON text."""

import datetime
import decimal
import enum
import json
import uuid
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.events.payload import decode_data, encode_data, encode_meta, validate_type
from realtime.exceptions import DataTooLarge, InvalidData, InvalidEventType

LIMIT = 65_536
Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    """A subclass, as Django's SafeString."""

    __slots__ = ()


def test_the_limit_of_metadata_is_in_bytes_of_utf8_and_exact():
    meta = {"sender": "ž" * 5}
    assert encode_meta(meta, 23) == '{"sender":"žžžžž"}'
    with pytest.raises(
        DataTooLarge, match="meta is 23 bytes of JSON, more than the 22 of MAX_META"
    ):
        encode_meta(meta, 22)


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ([], r"The meta is \[\]: give a dict"),
        ("alice", "The meta is 'alice': give a dict"),
        ({1: 2}, "As meta: .* has the key 1"),
        ({"sender": object()}, "As meta: .* holds a builtins.object"),
    ],
)
def test_metadata_is_a_json_object(meta, says):
    with pytest.raises(InvalidData, match=says):
        encode_meta(meta, LIMIT)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-0.0, "-0.0"),
        (1.5, "1.5"),
        (1e300, "1e+300"),
        (2**64, "18446744073709551616"),
        (-(10**400), "-1" + "0" * 400),
        ("", '""'),
        ("a\0b", r'"a\u0000b"'),
        ("a\r\nb\u2028c", '"a\\r\\nb\u2028c"'),
        ('"\\/', r'"\"\\/"'),
        ("žluť 🐎", '"žluť 🐎"'),
        ([], "[]"),
        ({}, "{}"),
        ((1, (2,)), "[1,[2]]"),
        ({"a": [1, {"b": None}]}, '{"a":[1,{"b":null}]}'),
        ({"": 1}, '{"":1}'),
        (OrderedDict(z=1, a=2), '{"z":1,"a":2}'),
        (Point(1, 2), "[1,2]"),
        (Colour.RED, "1"),
        (Text("safe"), '"safe"'),
        ({Text("k"): Text("v")}, '{"k":"v"}'),
    ],
    ids=repr,
)
def test_encode_data(data, text):
    assert encode_data(data, LIMIT) == text


class Numbered(dict[str, int]):
    """Has other items than it has keys and values: the encoder asks for these."""

    def items(self) -> Any:
        return [(int(key), value) for key, value in super().items()]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ({"a": [float("-inf")]}, "-inf"),
        ({1: 2}, "JSON keys are strings"),
        ({None: 2}, "JSON keys are strings"),
        ([{"a": {(1,): 2}}], "JSON keys are strings"),
        (Numbered({"1": 2}), "JSON keys are strings"),
        ({10**5000: 1}, "digits"),
        (10**5000, "digits"),
        ([-(10**5000)], "digits"),
        (datetime.date(2026, 1, 1), "datetime.date"),
        (datetime.datetime(2026, 1, 1), "datetime.datetime"),
        (decimal.Decimal(1), "decimal.Decimal"),
        (uuid.UUID(int=0), "uuid.UUID"),
        (b"bytes", "builtins.bytes"),
        ({1, 2}, "builtins.set"),
        (range(3), "builtins.range"),
        (object(), "builtins.object"),
        ([1, (2, {"a": b"x"})], "builtins.bytes"),
        ("\ud83d", "surrogate"),
        ({"\ud83d": 1}, "surrogate"),
        (["a", "b\udc00"], "surrogate"),
        (nested(100_000), "nested too deeply"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_encode_data_refuses(data, says):
    with pytest.raises(InvalidData, match=says):
        encode_data(data, LIMIT)


def to_json(value: object) -> object:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return [value]  # as bad as before
    if isinstance(value, datetime.time):
        raise ValueError("No times here.")
    raise TypeError


def test_convert_is_asked_for_what_json_has_not():
    data = {"a": [uuid.UUID(int=1), 1.5]}
    text = '{"a":["00000000-0000-0000-0000-000000000001",1.5]}'
    assert encode_data(data, LIMIT, to_json) == text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (object(), "builtins.object, which is not a JSON value"),
        ({uuid.UUID(int=1): 1}, "JSON keys are strings"),
        (b"", "nested too deeply"),
        ([datetime.time()], r"can't be written as JSON: No times here\.$"),
    ],
)
def test_what_convert_refuses_is_refused(data, says):
    with pytest.raises(InvalidData, match=says):
        encode_data(data, LIMIT, to_json)


def test_a_circle_is_refused():
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidData, match="nested too deeply"):
        encode_data(circle, LIMIT)


def test_deep_nesting_that_json_can_take_is_taken():
    assert encode_data(nested(200), LIMIT) == "[" * 200 + "]" * 200


@pytest.mark.parametrize("filler", ["a", "ž", "🐎"], ids=["1 byte", "2 bytes", "4 bytes"])
def test_the_limit_is_in_bytes_of_utf8_and_exact(filler):
    data = filler * 8
    size = len(json.dumps(data, ensure_ascii=False).encode())
    assert encode_data(data, size) == f'"{data}"'
    with pytest.raises(DataTooLarge, match=f"{size} bytes.* {size - 1} of MAX_EVENT_BYTES"):
        encode_data(data, size - 1)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # No lone surrogates: hypothesis's text() leaves category Cs out.
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_what_is_encoded_is_one_line_and_comes_back(data):
    text = encode_data(data, 10**9)
    assert not set(text) & {"\r", "\n", "\0"}
    assert decode_data(text) == decode_data(text.encode()) == data


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("null", None),
        (b'"\xc5\xbe"', "ž"),
        (' {"a": 1}\r\n', {"a": 1}),
        (r'"\ud83d\udc0e"', "🐎"),
        (r'"\\ud83d"', r"\ud83d"),
        (r'"\u0000"', "\0"),
        ("1e308", 1e308),
        ("-0", 0),
        ("1" * 4000, int("1" * 4000)),
        ('{"a":1,"a":2}', {"a": 2}),
    ],
)
def test_decode_data(text, data):
    assert decode_data(text) == data


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "This is not JSON"),
        (b"", "This is not JSON"),
        ("{", "This is not JSON"),
        ("{'a': 1}", "This is not JSON"),
        ("[1,]", "This is not JSON"),
        ("01", "This is not JSON"),
        ("1 2", "This is not JSON"),
        ('"a\nb"', "This is not JSON"),
        ("\ufeff1", "This is not JSON"),
        ("NaN", "NaN is not a JSON number"),
        ('[{"a": -Infinity}]', "-Infinity is not a JSON number"),
        ("1e999", "1e999 is out of range"),
        ("[-1e999]", "-1e999 is out of range"),
        ("[-" + "1" * 5000 + "]", "^The JSON has an integer of over 4300 digits.$"),
        (b"\xff", "not UTF-8"),
        (b'"\xed\xa0\xbd"', "not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        ('"a"'.encode("utf-32-be"), "This is not JSON"),
        (r'"\ud83d"', "surrogate"),
        (r'{"\uDC0E": 1}', "surrogate"),
        (r'[["\ud83d\ud83d\udc0e"]]', "surrogate"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_decode_data_refuses(text, says):
    with pytest.raises(InvalidData, match=says):
        decode_data(text)


@pytest.mark.parametrize("kind", ["message", "a", "a" * 64, "ž 🐎", "with space", "a:b", "\u2028"])
def test_validate_type(kind):
    assert validate_type(kind) == kind


@pytest.mark.parametrize(
    "kind", ["", "a" * 65, "a\n", "a\r", "\0", "\x1f", "\x7f", "\ud83d", None, 1, b"a", ["a"]]
)
def test_validate_type_refuses(kind):
    with pytest.raises(InvalidEventType, match="1 to 64 characters"):
        validate_type(kind)


def test_reset_is_reserved():
    with pytest.raises(InvalidEventType, match="reserved"):
        validate_type("reset")
