"""No pattern and no parser takes more than linear time, whatever a stranger sends."""

import ast
import contextlib
import gc
import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.http import parse_cookie
from hypothesis import given
from hypothesis import strategies as st

import realtime
from realtime.access.authentication import bearer_token
from realtime.access.hosts import host_of
from realtime.access.origins import check_origin
from realtime.events.payload import decode_data, validate_type
from realtime.events.position import parse_position, parse_positions
from realtime.events.topic import validate_topic
from realtime.exceptions import HistoryGone, RealtimeError
from realtime.http.requests import accepts_event_stream
from realtime.server.access_log import redact
from realtime.server.forwarded import ForwardedHeaders, parse_address
from realtime.streaming.ranges import parse_ranges, range_applies
from realtime.utils.asgi import Scope, header, query
from realtime.websocket.messages import token_of

SIZE = 64 * 1024
MAX_SECONDS = 0.1  # of process time for `SIZE`; a quadratic pattern takes seconds
# What a pattern wants to see first, so that the run after it is read; and what makes it fail.
OPENINGS = [
    *("", "GET /", "GET / HTTP/1.", "http://", "bytes=", "bytes=0-", "abcdefgh-", "user.", "con"),
    *("user.a.chat.", "/topics/", "con ", "con.", "x=", "?token="),
]
RUNS = [*"aZ0.,-=?&%/:@_ ;\t\n'\"é", "a ", "a=", "=a", "a=&", "0-,", "%61", ". ", "??="]
# No test is made of these: each process of the tests would need a second to import their SDKs.
WITH_SDK = ("realtime.llm.providers.anthropic", "realtime.llm.providers.openai")
ENDINGS = ["", "\n", "?=", "\0", "/events", "é"]

Use = Callable[[str], object]


@pytest.fixture(scope="session", autouse=True)
def _no_connection_left() -> None:
    """These tests have no database."""


def patterns() -> Iterator[tuple[str, Use]]:
    """Each pattern of the package, by its name and the method with which its module uses it."""
    for info in pkgutil.walk_packages(realtime.__path__, "realtime."):
        if not info.name.endswith((".__main__", *WITH_SDK)) and ".migrations." not in info.name:
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                if isinstance(value, re.Pattern):
                    methods = set(re.findall(rf"\b{name}\.(\w+)\(", inspect.getsource(module)))
                    assert methods, f"{info.name}.{name} is used elsewhere: have it tested too"
                    for method in sorted(methods):
                        yield f"{info.name}.{name}.{method}", use_of(value, method)


def use_of(pattern: re.Pattern[Any], method: str) -> Use:
    call = getattr(pattern, method)
    if method == "sub":
        call = partial(call, "")
    if isinstance(pattern.pattern, bytes):
        return lambda text: call(text.encode("latin1"))
    return call


def seconds(use: Use, text: str) -> float:
    """Of this thread's own time: what else the machine does is left out, and garbage too."""
    gc.disable()
    try:
        began = time.thread_time()
        use(text)
        return time.thread_time() - began
    finally:
        gc.enable()


def attack(opening: str, run: str, ending: str, size: int) -> str:
    return opening + run * ((size - len(opening) - len(ending)) // len(run)) + ending


def assert_linear(use: Use, most: float = MAX_SECONDS) -> None:
    """That no attack takes long, and the one that took longest grows with its length alone."""
    worst, slowest = 0.0, ("", "a", "")
    for opening in OPENINGS:
        for run in RUNS:
            for ending in ENDINGS:
                took = seconds(use, attack(opening, run, ending, SIZE // 16))
                assert took < most, (opening, run, ending)
                if took > worst:
                    worst, slowest = took, (opening, run, ending)
    for _ in range(3):  # others on the machine empty the processor's caches
        quarter, whole = (
            min(seconds(use, attack(*slowest, size)) for _ in range(3))
            for size in (SIZE // 4, SIZE)
        )
        # 4 times is linear, 16 times quadratic
        if whole < most and whole < 8 * quarter + 0.001:
            return
    pytest.fail(f"{slowest}: {whole} s, a quarter of it {quarter} s")


@pytest.mark.parametrize("use", [pytest.param(use, id=name) for name, use in patterns()])
def test_pattern_grows_linearly(use: Use) -> None:
    assert_linear(use)


FORWARDED = ForwardedHeaders(b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto")


def scope_with(name: str) -> Callable[[str], Scope]:
    """Return a function that makes the scope of a request with this header."""
    pair = name.encode(), lambda text: text.encode(errors="replace")
    return lambda text: {"type": "http", "query_string": b"", "headers": [(pair[0], pair[1](text))]}


# What reads a stranger's text, besides the parsers of the server, which have tests of their own.
PARSERS: dict[str, Use] = {
    "redact": redact,
    "parse_ranges": lambda text: parse_ranges(text, 10**9, 100),
    "parse_position": parse_position,
    "parse_positions": lambda text: parse_positions(text, ["public.a", "public.b"]),
    "validate_topic": validate_topic,
    "validate_type": validate_type,
    "decode_data": decode_data,
    "token_of": lambda text: token_of({"text": text}),
    "query": lambda text: query({"query_string": text.encode()}),
    "header": lambda text: header(scope_with("cookie")(text), b"cookie"),
    "bearer_token": lambda text: bearer_token(scope_with("authorization")(text)),
    "check_origin": lambda text: check_origin(scope_with("origin")(text)),
    "check_host": lambda text: host_of(scope_with("host")(text)),
    "Accept": lambda text: accepts_event_stream(
        cast(Any, SimpleNamespace(META={"HTTP_ACCEPT": text}))
    ),
    "forwarded for": lambda text: FORWARDED.read(
        [(b"x-forwarded-for", text.encode())], None, False
    ),
    "parse_address": parse_address,
    "cookies": lambda text: parse_cookie(text),
    "If-Range": lambda text: range_applies(text, '"a"', 0.0, 9.0),
}
# What they refuse a text with; anything else would be an error of the server's.
REFUSALS = (RealtimeError, HistoryGone)


@pytest.mark.parametrize("parse", [pytest.param(use, id=name) for name, use in PARSERS.items()])
def test_parser_grows_linearly_and_refuses_with_its_own_errors(parse: Use) -> None:
    def use(text: str) -> None:
        with contextlib.suppress(*REFUSALS):
            parse(text)

    assert_linear(use)


@given(st.text(max_size=60) | st.text(alphabet='a0.,-=?&%/:@_ ;"\\[]{}', max_size=60))
@pytest.mark.parametrize("parse", [pytest.param(use, id=name) for name, use in PARSERS.items()])
def test_parser_refuses_any_text_with_its_own_errors(parse: Use, text: str) -> None:
    with contextlib.suppress(*REFUSALS):
        parse(text)


def test_redaction_of_a_long_word_takes_no_time() -> None:
    target = "GET /" + "a" * 16_300 + "?="
    assert seconds(redact, target) < 0.01
    assert redact(f"{target}&token=x") == f"{target}&token=[redacted]"


def test_quadratic_pattern_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_patterns.OPENINGS", ["GET /"])
    # Slow with each of the runs; of 64 KiB for 17 seconds, of this in less than `MAX_SECONDS`.
    monkeypatch.setattr("tests.test_patterns.RUNS", ["a", "%61"])
    monkeypatch.setattr("tests.test_patterns.SIZE", 4 * 1024)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        assert_linear(re.compile(r"([^?&=]+)=([^&]*)").search)


def test_every_pattern_is_one_of_those() -> None:
    """A pattern that is made while a function runs would not be found by `patterns`."""
    inside = []
    for path in Path(realtime.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        at_top = {id(node) for each in tree.body for node in ast.walk(each)} - {
            id(node)
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            for node in ast.walk(each)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "re"
                and node.attr not in ("escape", "Pattern", "Match", "IGNORECASE", "ASCII", "I")
                and not (node.attr == "compile" and id(node) in at_top)
            ):
                inside.append(f"re.{node.attr}")
    assert inside == []
    values = [value for name in WITH_SDK for value in vars(importlib.import_module(name)).values()]
    assert not any(isinstance(value, re.Pattern) for value in values)
