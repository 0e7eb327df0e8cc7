"""No token in any log."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime.server.access_log import RedactingFilter, redact

from ..support.servers import wait_until
from .support import Worker


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a?token=x", "/a?token=[redacted]"),
        ("/a?b=1&ticket=x&c=2", "/a?b=1&ticket=[redacted]&c=2"),
        ("/a?TOKEN=x;token=y", "/a?TOKEN=[redacted];token=[redacted]"),
        ("/a?%74oken=x", "/a?%74oken=[redacted]"),
        ("/a?token=", "/a?token=[redacted]"),
        ("/a?mytoken=x&tokens=y", "/a?mytoken=x&tokens=y"),
        ("/a?x=token", "/a?x=token"),
        ("/plain", "/plain"),
        ("/chat?prompt=my%20rash", "/chat?prompt=[redacted]"),
        ("/a?password=x&api_key=y", "/a?password=[redacted]&api_key=[redacted]"),
        ("POST http://me:pw@h:1/v1 200", "POST http://[redacted]@h:1/v1 200"),
        ("redis://:p@ss@h/0?a=b", "redis://[redacted]@h/0?a=b"),
        ("http://h/@a?x=@", "http://h/@a?x=@"),
        ("mail a@b.c", "mail a@b.c"),
        ("error at '/a?token=x' in b", "error at '/a?token=[redacted]' in b"),
        ("b'token=x&y=1'", "b'token=[redacted]&y=1'"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_records_are_redacted_with_their_tracebacks() -> None:
    try:
        raise ValueError("no such page: /a?token=secret")
    except ValueError:
        record = logging.LogRecord("n", 40, "p", 1, "at %s", ("?ticket=secret",), sys.exc_info())
    assert RedactingFilter().filter(record)
    text = logging.Formatter().format(record)
    assert "secret" not in text
    assert "at ?ticket=[redacted]" in text
    assert "ValueError" in text


def test_access_lines(worker: Worker) -> None:
    worker.expected = ["ws boom"]
    with worker.client() as client:
        client.request("/hello?token=secret&x=1", "Connection: close")
        client.response()
    for path in ("/return", "/reject", "/error"):
        with worker.client() as client:
            client.upgrade(f"{path}?x=1&ticket=secret")
    text = worker.text
    assert "secret" not in text
    for line in (
        '"GET /hello?token=[redacted]&x=1" 200 5',
        '"WSCONNECT /return?x=1&ticket=[redacted]"',
        '"WSREJECT /reject?x=1&ticket=[redacted]"',
    ):
        assert line in text


def test_behind_a_proxy_the_client_is_named_and_not_the_proxy(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start("--proxy-headers", uds=str(tmp_path / "socket"))
    forwarded = "X-Forwarded-For: 9.8.7.6", "X-Forwarded-Port: 54"
    with worker.client() as client:
        client.request("/hello", "Connection: close", *forwarded)
        client.response()
    with worker.client() as client:
        client.upgrade("/return", *forwarded)
    for line in ("9.8.7.6:54 - - [", '"GET /hello" 200 5', '"WSCONNECT /return"'):
        wait_until(lambda line=line: line in worker.text, 10, line)  # type: ignore[misc]
    assert "None - - [" not in worker.text
