"""What three parsers make of the same bytes: this server's, httptools' and h11's."""

import asyncio
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import h11
import httptools

from realtime.server.http_connection import HTTPConnection
from realtime.server.limits import Limits
from realtime.server.state import ServerState
from realtime.server.transport import SocketTransport


class Request(NamedTuple):
    """A request that was read to its end."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def request_of(
    method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> Request:
    """A request without what is known to differ: h11 has codings in lower case, and applications
    see neither names with an underscore nor a query without contents. Cookies are one header."""
    path, _, query = target.partition(b"?")
    cookies = b"; ".join(value for name, value in headers if name == b"cookie")
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"cookie":
            if (name, cookies) not in kept:
                kept.append((name, cookies))
        elif b"_" not in name:
            kept.append((name, value.lower() if name == b"transfer-encoding" else value))
    return Request(method, path + b"?" + query if query else path, tuple(kept), body)


@dataclass
class Outcome:
    """What was read; and the status of the refusal, or 0. A library's refusal is a 400."""

    requests: list[Request]
    refused: int = 0


Pieces = Sequence[bytes]


def pieces_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


class Ours:
    """A connection of this server, whose application notes what it gets."""

    def __init__(self, connection: type[HTTPConnection] = HTTPConnection) -> None:
        self.connection = connection
        self.runner = asyncio.Runner()

    def close(self) -> None:
        self.runner.close()

    def __call__(self, pieces: Pieces) -> Outcome:
        return self.runner.run(self._read(pieces))

    async def _read(self, pieces: Pieces) -> Outcome:
        outcome = Outcome([])

        async def application(scope: Any, receive: Any, send: Any) -> None:
            target = scope["raw_path"] + b"?" + scope["query_string"]
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            outcome.requests.append(
                request_of(scope["method"].encode(), target, scope["headers"], body)
            )
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

        loop = asyncio.get_running_loop()
        server = ServerState(loop=loop, limits=Limits(), application=application)
        theirs, own = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            own.setblocking(False)
            transport = SocketTransport(loop, server.timeouts, own, None, None)
            connection = self.connection(server, transport)
            answers = b""
            for piece in pieces:
                is_over = transport.closed or transport._closing
                if not is_over and transport.receiver is connection:
                    connection.data_received(piece)
                await self._settle(server)
                with suppress(BlockingIOError):
                    answers += theirs.recv(1_000_000)
            transport.abort()
            await self._settle(server)
        status = int(re.findall(rb"HTTP/1\.1 (\d{3}) ", b"HTTP/1.1 200 " + answers)[-1])
        outcome.refused = 0 if status == 200 else status
        return outcome

    async def _settle(self, server: ServerState) -> None:
        for _ in range(200):
            await asyncio.sleep(0)
            if not server.sessions:
                break
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class _Collector:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.parser: Any = None

    def on_message_begin(self) -> None:
        self.target = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.trailers = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.trailers:
            self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.trailers = True  # from here on
        self.method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.outcome.requests.append(request_of(self.method, self.target, self.headers, self.body))


def by_httptools(pieces: Pieces) -> Outcome:
    outcome = Outcome([])
    collector = _Collector(outcome)
    parser = collector.parser = httptools.HttpRequestParser(collector)
    try:
        for piece in pieces:
            parser.feed_data(piece)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        outcome.refused = 400
    return outcome


def by_h11(pieces: Pieces) -> Outcome:
    outcome = Outcome([])
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
    request: Any = SimpleNamespace(body=b"")
    try:
        for piece in pieces:
            connection.receive_data(piece)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    break
                if event is h11.PAUSED:
                    if connection.their_state is not h11.DONE:
                        return outcome  # an upgrade, or the client's last request
                    connection.send(h11.Response(status_code=200, headers=[]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is not h11.DONE:
                        return outcome
                    connection.start_next_cycle()
                elif isinstance(event, h11.Request):
                    request = SimpleNamespace(head=event, body=b"")
                elif isinstance(event, h11.Data):
                    request.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    head = request.head
                    outcome.requests.append(
                        request_of(
                            bytes(head.method), bytes(head.target), head.headers, request.body
                        )
                    )
                    if connection.their_state is h11.MUST_CLOSE:
                        return outcome
    except h11.RemoteProtocolError:
        outcome.refused = 400
    return outcome
