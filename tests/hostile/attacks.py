"""What a stranger can send in 16 KiB: one request or one connection's messages each."""

import base64
import json
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

SIZE: Final = 16_384  # bytes of each attack, head and all; the limits allow more


class Attack(NamedTuple):
    """Bytes for one connection: a request, or a handshake and messages."""

    request: bytes
    messages: bytes = b""  # sent once the handshake is answered


def head(method: str, target: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode(
        "latin1"
    )


def handshake(target: str, *lines: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return head("GET", target, *upgrade, f"Sec-WebSocket-Key: {key}", *lines)


def body(target: str, content: bytes, *lines: str) -> bytes:
    return head("POST", target, f"Content-Length: {len(content)}", *lines) + content


def frame(opcode: int, payload: bytes = b"") -> bytes:
    assert len(payload) < 126
    return bytes((opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload


def fill(text: str, size: int) -> str:
    return (text * (size // len(text) + 1))[:size]


LINE: Final = 8_000  # of one header line or target: below the limits, so that it is read
TARGETS: Final = {
    "a long path": "/" + fill("a", LINE),
    "a path of slashes": fill("/", LINE),
    "a path of escapes": "/" + fill("%2e%2e%2f", LINE),
    "a path of escapes that are no UTF-8": "/" + fill("%ff", LINE - LINE % 3),
    "a query without names": "/?" + fill("=", LINE),
    "a query of many names": "/?" + fill("a=&", LINE),
    "a query that looks like a secret": "/?" + fill("?=token", LINE),
    "a long topic": f"/topics/{fill('a', LINE)}/events",
    "a topic of dots": f"/topics/public.{fill('a.', LINE)}/events",
    "a long position": f"/topics/public.x/events?after={fill('1-', LINE)}",
    "many topics": "/events?" + "&".join(f"topic=public.{n}" for n in range(400)),
    "a file's name of dots": f"/download/{fill('.', LINE)}",
}
LINES: Final = {
    "Cookie: without names": "Cookie: " + fill(";", LINE),
    "Cookie: of many names": "Cookie: " + fill("a=b; ", LINE),
    "Cookie: in quotes": 'Cookie: a="' + fill('\\"', LINE - 20) + '"',
    "Cookie: octal escapes": 'Cookie: a="' + fill("\\101", LINE - 20) + '"',
    "Cookie: a session": "Cookie: sessionid=" + fill("a", 4_000),
    "Authorization: a long token": "Authorization: Bearer " + fill("a", LINE),
    "Authorization: no token": "Authorization: " + fill(" ", LINE - 100) + "a",
    "Accept: of many types": "Accept: " + fill("a/b;q=0.1,", LINE),
    "Accept-Language: of many": "Accept-Language: " + fill("en;q=0.1,", LINE),
    "Accept-Encoding: of many": "Accept-Encoding: " + fill("gzip;q=0.1,", LINE),
    "Range: of many": "Range: bytes=" + fill("0-0,", LINE),
    "If-None-Match: of many": "If-None-Match: " + fill('"a",', LINE),
    "If-Modified-Since: of blanks": "If-Modified-Since: " + fill("Mon ,", LINE),
    "Last-Event-ID: long": "Last-Event-ID: " + fill("a-1,", LINE),
    "Origin: long": "Origin: http://" + fill("a.", LINE),
    "X-Forwarded-For: of many": "X-Forwarded-For: " + fill("1.2.3.4, ", LINE),
    "Forwarded: of many": "Forwarded: " + fill('for="[::1]";', LINE),
    "Content-Type: of parameters": "Content-Type: a/b" + fill("; a=b", LINE),
    "Content-Type: in quotes": 'Content-Type: a/b; a="' + fill('\\"', LINE),
    "Connection: of many": "Connection: " + fill("a,", LINE),
    "Transfer-Encoding: of many": "Transfer-Encoding: " + fill("chunked,", LINE),
    "Expect: long": "Expect: " + fill("100-continue,", LINE),
}
ONCE: Final = ("Authorization", "Content-Type", "Transfer")  # two of them are refused
PAGES: Final = ("/", "/topics/public.x/events", "/stream/items", "/download/sample.txt", "/login/")
FORM: Final = "Content-Type: application/x-www-form-urlencoded"
FRAMES: Final = {
    "messages of no bytes": frame(0x82),
    "messages of one byte": frame(0x81, b"a"),
    "fragments of no bytes": frame(0x00),
    "fragments of one byte": frame(0x00, b"a"),
    "pings": frame(0x89),
    "long pings": frame(0x89, bytes(125)),
    "pongs": frame(0x8A),
    "JSON of one byte": frame(0x81, b"1"),
    "subscriptions": frame(0x81, b'{"type":"subscribe","topic":"public.x"}'),
    "refused subscriptions": frame(0x81, b'{"type":"subscribe","topic":"secret"}'),
    "refused events": frame(0x81, b'{"type":"publish","topic":"public.x","data":1}'),
}
SOCKETS: Final = ("/ws/topics/public.x", "/ws", "/ws/auth/message", "/ws/echo")


def attacks() -> Iterator[tuple[str, Attack]]:
    """Yield each attack by its name."""
    for name, target in TARGETS.items():
        yield name, Attack(head("GET", target))
        yield f"{name}, in a handshake", Attack(handshake(target))
        yield f"{name}, in a POST", Attack(body(target, b"1"))
    for name, line in LINES.items():
        for page in PAGES:
            method = "POST" if line.startswith("Content-Type") else "GET"
            lines = [line] if line.startswith(ONCE) else [line, line]
            yield f"{name}, to {page}", Attack(head(method, page, *lines))
        yield f"{name}, in a handshake", Attack(handshake("/ws/topics/public.x", line))
    yield "many header lines", Attack(head("GET", "/", *(f"a{n}: b" for n in range(120))))
    line = "Sec-WebSocket-Protocol: " + fill("a, ", LINE)
    yield "many subprotocols", Attack(handshake("/ws/topics/public.x", line))
    line = "Sec-WebSocket-Extensions: " + fill("permessage-deflate; a=b, ", LINE)
    yield "many extensions", Attack(handshake("/ws/topics/public.x", line))
    yield from _bodies()
    for path in SOCKETS:
        for name, one in FRAMES.items():
            opening = frame(0x01) if name.startswith("fragments") else b""
            rest = opening + one * ((SIZE - len(opening)) // len(one))
            yield f"{name}, to {path}", Attack(handshake(path), rest)
        deep = b"[" * (SIZE - 200)
        big = bytes((0x81, 0xFE)) + struct.pack("!H", len(deep)) + b"\0\0\0\0" + deep
        yield f"a deep JSON message, to {path}", Attack(handshake(path), big)


def _bodies() -> Iterator[tuple[str, Attack]]:
    room = SIZE - 400
    boundary = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    contents = {
        "a form of many fields": (fill("a=&", room).encode(), FORM),
        "a form of escapes": (("a=" + fill("%61", room - 2)).encode(), FORM),
        "a multipart form": (
            boundary * (room // len(boundary)),
            "Content-Type: multipart/form-data; boundary=b",
        ),
        "a multipart form without end": (
            b"--b\r\nContent-Disposition: form-data; name=a; filename*=" + b"'" * (room - 100),
            "Content-Type: multipart/form-data; boundary=b",
        ),
        "deep JSON": (b"[" * room, "Content-Type: application/json"),
        "JSON of many names": (
            json.dumps({str(n): n for n in range(1_000)}).encode(),
            "Content-Type: application/json",
        ),
        "a long number": (b"1" * room, "Content-Type: application/json"),
    }
    for name, (content, line) in contents.items():
        for page in ("/topics/public.x/events", "/login/", "/admin/login/", "/realtime/tickets"):
            yield f"{name}, to {page}", Attack(body(page, content, line))
    chunked = head("POST", "/topics/public.x/events", "Transfer-Encoding: chunked")
    one = b"1;" + b"a" * 100 + b"\r\n1\r\n"
    yield "chunks of one byte", Attack(chunked + b"1\r\n1\r\n" * (room // 6) + b"0\r\n\r\n")
    yield "chunks with extensions", Attack(chunked + one * (room // len(one)) + b"0\r\n\r\n")
    trailers = b"0\r\n" + b"a: b\r\n" * 120 + b"\r\n"
    yield "trailers", Attack(chunked + trailers)
