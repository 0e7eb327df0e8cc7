"""The handshake of a WebSocket (RFC 6455, section 4.2), from the server's side. No I/O."""

import binascii
import hashlib
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from realtime.server.http_request import RequestHead
from realtime.server.http_response import Response

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
OWN_HEADERS: Final = frozenset(
    (b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-extensions")
)
FORBIDDEN: Final = frozenset(b"\r\n\0")  # in a header
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
Header = tuple[bytes, bytes]


class HandshakeError(Exception):
    """What asks for a WebSocket is not a valid request for one: status, reason and headers."""

    def __init__(self, status: int, reason: str, *headers: Header) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class Handshake:
    """A request for a WebSocket, until it is answered. The bytes returned are to be sent."""

    __slots__ = ("_denial", "_server", "head", "subprotocols")

    def __init__(self, head: RequestHead, server: bytes) -> None:
        self.head = head
        offered = b",".join(head.get(b"sec-websocket-protocol")).decode("latin1")
        names = (name.strip(" \t") for name in offered.split(","))
        self.subprotocols = list(dict.fromkeys(filter(None, names)))  # RFC 9110, section 5.6.1.2
        self._server = server  # the value of the header of this name, if it is to be sent
        self._denial: Response | None = None

    @property
    def is_denied(self) -> bool:
        """Return whether the head of a denial has been sent."""
        return self._denial is not None and self._denial.is_head_sent

    def check(self) -> None:
        """Raise HandshakeError for an invalid request (section 4.2.1)."""
        head = self.head
        if head.method != b"GET" or not head.minor or head.has_body:
            reason = "A WebSocket handshake is a GET of HTTP/1.1 without a body."
            raise HandshakeError(HTTPStatus.BAD_REQUEST, reason)
        if head.get(b"sec-websocket-version") != [b"13"]:
            required = (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")
            raise HandshakeError(
                HTTPStatus.UPGRADE_REQUIRED, "Version 13 is spoken here.", *required
            )
        if not all(TOKEN.fullmatch(name) for name in self.subprotocols):
            reason = "Sec-WebSocket-Protocol is not a list of tokens."
            raise HandshakeError(HTTPStatus.BAD_REQUEST, reason)
        keys = head.get(b"sec-websocket-key")
        try:
            is_valid = len(keys) == 1 and len(binascii.a2b_base64(keys[0], strict_mode=True)) == 16
        except binascii.Error:
            is_valid = False
        if not is_valid:
            reason = "Sec-WebSocket-Key is not 16 bytes in base64."
            raise HandshakeError(HTTPStatus.BAD_REQUEST, reason)

    def accept(self, message: dict[str, Any]) -> bytes:
        """Return the response 101. Raises ValueError for what `message` must not contain."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %b\r\n" % accept_key(self.head.get(b"sec-websocket-key")[0])
        ]
        chosen = message.get("subprotocol")
        if chosen is not None:
            if chosen not in self.subprotocols:
                raise ValueError(f"The client did not offer the subprotocol {chosen!r}.")
            lines.append(b"sec-websocket-protocol: %b\r\n" % chosen.encode("ascii"))
        for name, value in message.get("headers", ()):
            lower = bytes(name).lower()
            if lower in OWN_HEADERS or (lower == b"sec-websocket-protocol" and chosen):
                raise ValueError(f"The header {name!r} is the server's business.")
            if not FORBIDDEN.isdisjoint(name + value):
                raise ValueError("A header contains CR, LF or NUL.")
            lines.append(b"%b: %b\r\n" % (name, value))
        if self._server:
            lines.append(b"server: %b\r\n" % self._server)
        return b"".join((*lines, b"\r\n"))

    def deny(self, status: int, headers: Iterable[Header]) -> None:
        """Begin an HTTP response in place of a WebSocket. Raises ValueError for bad headers."""
        denial = Response(self.head.method, self.head.minor, False)
        denial.start(status, headers, self._server)
        self._denial = denial

    def denial_body(self, body: bytes, more: bool) -> bytes:
        """Return a part of the denial's body, the first with the head before it."""
        assert self._denial is not None
        return self._denial.body(body, more)

    def refuse(self, status: int, reason: str, *headers: Header) -> bytes:
        """Return a whole response: an error of the server's own."""
        self.deny(status, [(b"content-type", b"text/plain; charset=utf-8"), *headers])
        return self.denial_body(reason.encode() + b"\n", False)


def accept_key(key: bytes) -> bytes:
    """Return Sec-WebSocket-Accept for a Sec-WebSocket-Key (section 4.2.2)."""
    digest = hashlib.sha1(key + GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)
