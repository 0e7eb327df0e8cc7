"""The handshake over real sockets, and what needs none."""

import time

import pytest

from realtime.server.handshake import Handshake, HandshakeError, accept_key
from realtime.server.http_request import RequestHead, parse_head
from realtime.server.limits import Limits

from .support import KEY, Client, Worker, frame

TEXT, PING = 1, 9


def head(*lines: str, request: str = "GET / HTTP/1.1") -> RequestHead:
    usual = ("Host: t", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
    return parse_head("\r\n".join((request, *usual, *lines)).encode(), Limits())


def test_the_key_is_accepted_as_in_the_standard() -> None:  # section 1.3
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"subprotocol": "c"}, "did not offer"),
        ({"headers": [(b"Upgrade", b"x")]}, "the server's business"),
        ({"headers": [(b"Sec-WebSocket-Protocol", b"a")], "subprotocol": "a"}, "the server's"),
        ({"headers": [(b"a", b"b\r\nc: d")]}, "CR, LF or NUL"),
        ({"headers": [(b"a\0", b"b")]}, "CR, LF or NUL"),
    ],
)
def test_what_an_application_must_not_accept_with(message: dict, problem: str) -> None:
    handshake = Handshake(head("Sec-WebSocket-Protocol: a, b"), b"")
    with pytest.raises(ValueError, match=problem):
        handshake.accept(message)


def test_offered_subprotocols_are_a_list_of_tokens() -> None:
    offers = "Sec-WebSocket-Protocol: , a,,b , a", "Sec-WebSocket-Protocol: v1.x"
    assert Handshake(head(*offers), b"").subprotocols == ["a", "b", "v1.x"]
    assert Handshake(head("Sec-WebSocket-Protocol: ,"), b"").subprotocols == []
    for value in ("a b", "a/b", '"a"', "\u00fc"):
        with pytest.raises(HandshakeError) as error:
            Handshake(head(f"Sec-WebSocket-Protocol: x, {value}"), b"").check()
        assert error.value.status == 400


def test_a_subprotocol_may_be_a_header_of_the_application() -> None:
    handshake = Handshake(head(), b"daphne")
    answer = handshake.accept({"headers": [(b"Sec-WebSocket-Protocol", b"a")]})
    assert answer.endswith(b"\r\nSec-WebSocket-Protocol: a\r\nserver: daphne\r\n\r\n")


@pytest.mark.parametrize("request_line", ["POST / HTTP/1.1", "GET / HTTP/1.0"])
def test_what_does_not_ask_for_a_websocket(request_line: str) -> None:
    with pytest.raises(HandshakeError) as error:
        Handshake(head(request=request_line), b"").check()
    assert error.value.status == 400


def test_a_denial_counts_once_its_head_is_sent() -> None:
    handshake = Handshake(head(), b"")
    handshake.deny(401, [])
    assert not handshake.is_denied
    assert handshake.denial_body(b"no", False).endswith(b"\r\n\r\nno")
    assert handshake.is_denied


def hang(worker: Worker) -> Client:
    """Return a client whose handshake is not answered."""
    client = worker.client()
    client.send(b"GET /hang HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    client.send(f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    time.sleep(0.1)
    return client


def test_too_much_before_the_answer(worker: Worker) -> None:
    with hang(worker) as client:
        client.send(frame(TEXT, b"x" * 60_000))
        time.sleep(0.1)
        client.send(frame(TEXT, b"x" * 6_000))
        assert client.response().status == 400
    worker.wait_for("hang websocket.disconnect")


def test_the_handshake(shared: Worker) -> None:
    with shared.client() as client:
        response = client.upgrade()
        assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert "sec-websocket-extensions" not in response.headers


def test_a_message_sent_with_the_handshake_is_received(shared: Worker) -> None:
    with shared.client() as client:
        assert client.upgrade(data=frame(TEXT, b"early") + frame(PING)).status == 101
        assert client.frame() == (0x8A, b"")
        assert client.frame() == (0x81, b"early")


def test_a_subprotocol_and_headers(shared: Worker) -> None:
    with shared.client() as client:
        response = client.upgrade(
            "/accept",
            "Sec-WebSocket-Protocol: a, b",
            "Sec-WebSocket-Extensions: permessage-deflate",
        )
        assert response.headers["sec-websocket-protocol"] == "b"
        assert response.headers["x-extra"] == "yes"
        assert response.headers["set-cookie"] == "a=b"
        assert "sec-websocket-extensions" not in response.headers


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Sec-WebSocket-Version: 13"], 400),
        (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"], 400),
        (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==@"], 400),
        (["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 426),
    ],
)
def test_a_bad_handshake(shared: Worker, lines: list[str], status: int) -> None:
    with shared.client() as client:
        client.request("/echo", "Upgrade: websocket", "Connection: Upgrade", *lines)
        response = client.response()
        assert response.status == status
        if status == 426:
            assert response.headers["sec-websocket-version"] == "13"


def test_a_denial_carries_status_and_body(worker: Worker) -> None:
    with worker.client() as client:
        response = client.upgrade("/deny")
        assert response.status == 401
        assert response.headers["content-type"] == "application/json"
        assert b'{"a":' in response.body
        assert b"1}" in response.body
    worker.wait_for("denied websocket.disconnect")


@pytest.mark.parametrize(("path", "status"), [("/reject", 403), ("/error", 500), ("/stray", 500)])
def test_a_rejection(shared: Worker, path: str, status: int) -> None:
    shared.expected += ["application: ws boom", "application: stray"]
    with shared.client() as client:
        assert client.upgrade(path).status == status


def test_the_client_leaves_before_it_is_accepted(worker: Worker) -> None:
    hang(worker).close()
    worker.wait_for("hang websocket.disconnect")
