"""`realtime.streaming.json_columns`: lines by column are the lines by value."""

import datetime
import decimal
import json
import uuid

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from realtime.events.event import Event
from realtime.streaming.json_columns import encode_event_line, encode_lines, encode_rows

UTC = datetime.UTC
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(), st.text(), max_size=3),
)


def by_django(rows, names):
    """The standard: Django's encoder, a dict at a time."""
    encode = DjangoJSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return "".join(encode(dict(zip(names, row, strict=True))) + "\n" for row in rows)


@given(st.lists(st.tuples(values, values), max_size=5))
def test_mixed_columns_are_what_django_writes(rows):
    names = ("a", 'quote " percent % é')
    text = by_django(rows, names).encode("utf-8", "backslashreplace")
    assert encode_rows(names, rows) == text


def test_half_of_a_surrogate_pair_is_escaped():
    value = {"\udc00": ["a\ud83d", "🐎"]}
    line = b'{"\\udc00":["a\\ud83d","\xf0\x9f\x90\x8e"]}\n'
    assert encode_lines([value]) == line
    assert encode_rows(["\udc00"], [(value["\udc00"],)]) == line
    assert encode_rows(["\udc00"], [("\ud83d",)]) == b'{"\\udc00":"\\ud83d"}\n'
    assert json.loads(line) == value


@given(st.data())
def test_columns_of_one_type_are_what_django_writes(data):
    kinds = [st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers()]
    kinds += [st.booleans(), st.none(), st.dates(), st.uuids(), st.decimals(allow_nan=False)]
    kinds += [st.datetimes(), st.datetimes(timezones=st.just(UTC))]
    columns = [st.one_of(kind, st.none()) for kind in kinds] + kinds
    rows = data.draw(st.lists(st.tuples(*columns), min_size=1, max_size=6))
    names = [f"c{number}" for number in range(len(columns))]
    assert encode_rows(names, rows).decode() == by_django(rows, names)


def test_values_beyond_the_names_are_left_out():
    assert encode_rows(("a",), [(1, "key"), (2, "key")]) == b'{"a":1}\n{"a":2}\n'
    assert encode_rows(("a",), []) == b""


def test_a_line_is_one_line():
    text = "a\nb\r\u2028\0"
    assert encode_rows(("t",), [(text,)]).count(b"\n") == 1
    line = encode_lines([text])
    assert line.count(b"\n") == 1
    assert json.loads(line) == text


def test_lazy_text_is_text():
    assert encode_lines([gettext_lazy("Yes")]) == b'"Yes"\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_can_not_say_is_an_error(value):
    with pytest.raises((ValueError, TypeError)):
        encode_lines([value])
    with pytest.raises((ValueError, TypeError)):
        encode_rows(("a",), [(value,)])


def test_the_special_types():
    row = (
        uuid.UUID(int=1),
        decimal.Decimal("1.50"),
        datetime.datetime(2025, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    )
    assert json.loads(encode_rows(("u", "d", "t"), [row])) == {
        "u": "00000000-0000-0000-0000-000000000001",
        "d": "1.50",
        "t": "2025-01-02T03:04:05.678Z",
    }


def test_an_event_line_has_the_fields_of_a_frame():
    event = Event("room.a", 'odd "type"', '{"a":"é"}', "abcdefgh", 7)
    assert json.loads(encode_event_line(event)) == {
        "id": "abcdefgh-7",
        "event": 'odd "type"',
        "data": {"a": "é"},
    }
