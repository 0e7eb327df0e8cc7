"""WebSocket connections (RFC 6455): the handshake, the frames, and the ASGI side.

Daphne builds an HTTP request, writes it out again for Autobahn to parse, and keeps both; here the
handshake is a few lines, and what it needed is dropped once the connection is open.
"""

import asyncio
import binascii
import hashlib
from typing import Any, Final

from realtime.server import access_log as access
from realtime.server import frames, scope
from realtime.server.disconnect import DisconnectEvent
from realtime.server.frames import FrameError, FrameParser
from realtime.server.http_request import RequestHead
from realtime.server.http_response import Response
from realtime.server.state import ServerState
from realtime.server.timeouts import CHECKS_BEFORE_PING, cancel_after
from realtime.server.transport import Transport

Message = dict[str, Any]

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
MAX_EARLY = 65_536
"""Bytes a client may send before it has been accepted."""
LAST_WORDS = 1.0
"""Seconds in which an application may deal with the messages before a close."""
RESTART_REASON = "The server is restarting"

CONNECTING, OPEN, CLOSING, CLOSED = range(4)

_ACCEPT_HEADERS = frozenset(
    (b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-extensions")
)


class WebSocket:
    """One WebSocket connection and its application."""

    __slots__ = (
        "_accept_key",
        "_bucket",
        "_bytes",
        "_code",
        "_denial",
        "_eager",
        "_fast",
        "_head",
        "_last",
        "_opened",
        "_parser",
        "_pong",
        "_queue",
        "_silent",
        "_subprotocols",
        "_told",
        "_waiter",
        "gone",
        "path",
        "server",
        "state",
        "task",
        "transport",
    )

    def __init__(self, server: ServerState, transport: Transport, head: RequestHead) -> None:
        self.server = server
        self.transport = transport
        self.path = access.redact(head.target.decode("ascii"))
        self.gone = DisconnectEvent()
        self.state = CONNECTING
        self.task: asyncio.Task[None] | None = None
        self._head: RequestHead | None = head
        self._accept_key = b""
        self._subprotocols: list[str] = []
        self._denial: Response | None = None
        self._parser: FrameParser | None = None  # only while something is incomplete
        self._fast = min(
            server.websocket_max_frame_size or 65_535,
            server.websocket_max_message_size or 65_535,
        )
        self._queue: list[Message] = [{"type": "websocket.connect"}]
        self._bytes = 0  # of the messages in the queue
        self._waiter: asyncio.Future[None] | None = None
        self._told = False  # the disconnect is in the queue, or has been received
        self._code = frames.ABNORMAL  # of the close frame that was sent
        self._eager = False  # the application has sent since it last waited
        self._silent = 0  # checks since something was heard
        self._last: tuple[bytes, int, str] | None = None  # what ends it, while that has to wait
        self._pong: bytes | None = None  # a ping's payload, when its pong has to wait
        self._opened = server.loop.time()
        transport.receiver = self
        self._bucket = server.timeouts.add(self)

    # The handshake

    def begin(self, rest: bytes) -> None:
        """Check the handshake and start the application; rest is what followed the request."""
        head, server = self._head, self.server
        assert head is not None
        server.connections.add(self)
        problem = _handshake_problem(head)
        if problem is not None:
            self._refuse(*problem)
            return
        if server.is_draining:
            self._refuse(503, RESTART_REASON, (b"retry-after", b"1"))
            return
        self._accept_key = accept_key(head.get(b"sec-websocket-key")[0])
        self._subprotocols = [
            name.strip()
            for value in head.get(b"sec-websocket-protocol")
            for name in value.decode("latin1").split(",")
        ]
        if rest:
            self.data_received(rest)
        gone = self.gone
        built = scope.build("websocket", head, self.transport, gone, server)
        built["subprotocols"] = list(self._subprotocols)
        built["extensions"]["websocket.http.response"] = {}
        server.sessions.add(self)
        self.task = server.loop.create_task(server.application(built, self.receive, self.send))
        self.task.add_done_callback(self._done)
        self._log("connecting")

    def _refuse(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer the handshake with an HTTP error of the server's own."""
        self._deny(status, [(b"content-type", b"text/plain; charset=utf-8"), *headers])
        self._deny_body(detail.encode() + b"\n", False)

    def _deny(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert self._head is not None
        self._denial = Response(self._head.method, self._head.minor, False)
        self._denial.start(status, headers, self.server.server_header)

    def _deny_body(self, body: bytes, more: bool) -> None:
        assert self._denial is not None
        self.transport.write(self._denial.body(body, more))
        if not more:
            self._tell(frames.ABNORMAL, "")
            self._end(linger=True)

    def _accept(self, message: Message) -> None:
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: %b\r\n" % self._accept_key
        ]
        chosen = message.get("subprotocol")
        if chosen is not None:
            if chosen not in self._subprotocols:
                raise ValueError(f"The client did not offer the subprotocol {chosen!r}.")
            lines.append(b"sec-websocket-protocol: %b\r\n" % chosen.encode("ascii"))
        for name, value in message.get("headers", ()):
            lower = bytes(name).lower()
            if lower in _ACCEPT_HEADERS or (lower == b"sec-websocket-protocol" and chosen):
                raise ValueError(f"The header {name!r} is the server's business.")
            if b"\r" in name + value or b"\n" in name + value or b"\0" in name + value:
                raise ValueError("A header contains CR, LF or NUL.")
            lines.append(b"%b: %b\r\n" % (name, value))
        if self.server.server_header:
            lines.append(b"server: %b\r\n" % self.server.server_header)
        lines.append(b"\r\n")
        self.state = OPEN
        # A large part of an idle connection's memory, and of no use any more.
        self._head = None
        self._accept_key = b""
        self._subprotocols = []
        self.transport.write(b"".join(lines))
        if self.transport.closed:
            return
        if self.transport.lane is not None:
            self.transport.lane.open(frames.frame_text)
        self._log("connected")
        if self._parser is not None:
            self._parse()

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        if self.state == OPEN and self._parser is None:
            # The common case, without a parser: one whole message.
            try:
                message = frames.parse_whole(data, self._fast)
            except FrameError as error:
                self._fail(error.code, error.reason)
                return
            if message is not None:
                self._deliver(message)
                return
        if self.state == CLOSED or self._last is not None:
            return
        if self._parser is None:
            server = self.server
            self._parser = FrameParser(
                server.websocket_max_frame_size, server.websocket_max_message_size
            )
        self._parser.feed(data)
        if self.state == CONNECTING:
            if self._parser.waiting > MAX_EARLY:
                self._refuse(400, "Too much data before the handshake was answered.")
        else:
            self._parse()

    def _parse(self) -> None:
        parser = self._parser
        if parser is None or self._last is not None:
            return
        try:
            while self.state == CLOSING or not self._full:
                frame = parser.next()
                if frame is None:
                    if parser.idle:
                        self._parser = None
                    return
                self._frame(frame.opcode, frame.payload)
                if self.state == CLOSED or self._last is not None:
                    return
            self.transport.pause_reading()
        except FrameError as error:
            self._fail(error.code, error.reason)

    def _frame(self, opcode: int, payload: Any) -> None:
        if opcode == frames.CLOSE:
            self._closed_by_peer(payload)
        elif self.state == CLOSING:
            pass  # section 1.4: what comes after our close frame is not ours to read
        elif opcode in (frames.TEXT, frames.BINARY):
            self._deliver(payload)
        elif opcode == frames.PING:
            if self.transport.pending:
                self._pong = payload  # section 5.5.3: only the latest ping needs a pong
            else:
                self.transport.write(frames.encode(frames.PONG, payload))

    def eof_received(self) -> None:
        if self._last is not None:
            self._finish_now()  # it may still be reading, and waits for our close frame
        else:
            self.transport.abort()

    def peer_left(self, reset: bool) -> None:
        if reset:
            self.transport.abort()
        elif not self.gone.is_set():
            self.gone.set()
            # What it sent before it left is delivered, for as long as it may take an application
            # to end.
            self._cancel_later()

    def flushed(self) -> None:
        if self._pong is not None and self.state == OPEN:
            pong, self._pong = self._pong, None
            self.transport.write(frames.encode(frames.PONG, pong))

    def connection_lost(self) -> None:
        self.server.connections.discard(self)
        if self.state != CLOSED:
            code = self._code if self.state == CLOSING else frames.ABNORMAL
            _, code, reason = self._last or (b"", code, "")
            self._tell(code, reason)
            self._end()

    # Called by the timeouts

    def check(self, now: float) -> None:
        """Ping a peer that has been silent, and give up one that does not answer."""
        server = self.server
        if self.state == CONNECTING:
            if 0 <= server.websocket_connect_timeout < now - self._opened and not self._denial:
                self._refuse(503, "The application did not respond in time.")
                self._cancel_later()
            return
        if self.state != OPEN:
            return
        if 0 <= server.websocket_timeout < now - self._opened:
            self.close(frames.NORMAL, "")
            return
        if self.transport.pending or not self.transport.reading:
            self._silent = 0  # it can't get a ping, or we do not read its pong
            return
        self._silent += 1
        if self._silent == CHECKS_BEFORE_PING:
            self.transport.write(frames.encode(frames.PING, b""))
        elif self._silent >= server.dead_after:
            self.transport.abort()

    # The application

    @property
    def _full(self) -> bool:
        limits = self.server.limits
        return len(self._queue) >= limits.receive_messages or self._bytes >= limits.receive_bytes

    def _deliver(self, message: str | bytes) -> None:
        key = "text" if isinstance(message, str) else "bytes"
        self._queue.append({"type": "websocket.receive", key: message})
        self._bytes += len(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        elif self._full:
            self.transport.pause_reading()

    def _tell(self, code: int, reason: str) -> None:
        """Put the disconnect at the end of the queue, once."""
        if not self._told:
            self._told = True
            self._queue.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    async def receive(self) -> Message:
        """ASGI's receive."""
        queue = self._queue
        while not queue:
            if self._last is not None:
                self._finish_now()
                continue
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("receive() is already being awaited.")
            waiter = self._waiter = self.server.loop.create_future()
            self._eager = False
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # not when a cancelled receive() was replaced
                    self._waiter = None
        message = queue.pop(0)
        if self._bytes:
            self._bytes -= len(message.get("text") or message.get("bytes") or b"")
        if not self.transport.reading and not self._full and self.state != CLOSED:
            if self._parser is not None:
                self._parse()
            if not self._full and self.state != CLOSED:
                self.transport.resume_reading()
        return message

    async def send(self, message: Message) -> None:
        """ASGI's send: returns when the transport has taken everything."""
        kind = message["type"]
        if self.state == OPEN and kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if text is not None:
                if data is not None:
                    raise ValueError("A message is text or bytes, not both.")
                payload = frames.encode(frames.TEXT, text.encode())
            elif data is not None:
                payload = frames.encode(frames.BINARY, data)
            else:
                raise ValueError("A message needs text or bytes.")
            self.transport.write(payload)
            if self.transport.pending:
                self._eager = False
                await self.transport.drain()
            elif self._eager:
                await asyncio.sleep(0)
            else:
                self._eager = True
        elif kind == "websocket.close":
            code = message.get("code")
            self._application_closes(frames.NORMAL if code is None else code, message)
        elif self.state in (CLOSING, CLOSED):
            await asyncio.sleep(0)  # the peer is gone; let the application notice
        elif self.state == OPEN:
            raise ValueError(f"An accepted WebSocket can't send {kind!r}.")
        elif self._denial is not None:
            if kind != "websocket.http.response.body":
                raise ValueError(f"After a denial's start, {kind!r} can't be sent.")
            self._deny_body(message.get("body", b""), message.get("more_body", False))
            await self.transport.drain()
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.http.response.start":
            self._deny(message["status"], list(message.get("headers", ())))
        else:
            raise ValueError(f"A WebSocket that is not accepted yet can't send {kind!r}.")

    def _application_closes(self, code: int, message: Message) -> None:
        if self.state == CONNECTING:
            if self._denial is None:
                self._deny(403, [(b"content-type", b"text/plain; charset=utf-8")])
                self._deny_body(b"Access denied\n", False)
        elif self.state == OPEN:
            if not frames.may_arrive(code):
                raise ValueError(f"{code} is not a close code that can be sent.")
            self.close(code, message.get("reason") or "")

    # Closing

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait for the peer's."""
        if self.state != OPEN:
            return
        self.state = CLOSING
        self._code = code
        if self.transport.lane is not None:
            self.transport.lane.shut()
        self.transport.write(frames.encode_close(code, reason))
        if self._last is not None:
            self._finish_now()
            return
        self.transport.resume_reading()
        if self._parser is not None:
            self._parse()
        self.server.loop.call_later(self.server.limits.close_timeout, self.transport.abort)

    def _closed_by_peer(self, payload: bytes) -> None:
        code, reason = frames.decode_close(payload)
        self._finish(frames.encode_close(code), code, reason)

    def _fail(self, code: int, reason: str) -> None:
        """Section 7.1.7: the peer broke the protocol."""
        self._finish(frames.encode_close(code, reason), code, reason)

    def _finish(self, answer: bytes, code: int, reason: str) -> None:
        """Answer with a close frame and end, once the application has dealt with what came before.

        It may still answer that: section 5.5.1 lets an endpoint finish what it is sending.
        """
        waiting = self._waiter is not None and not self._waiter.done()
        if self.state == OPEN and (self._queue or not waiting):
            self._last = (answer, code, reason)
            if self._parser is None:  # what else arrives must not take the short way
                self._parser = FrameParser(0, 0)
            self.gone.set()
            self.server.loop.call_later(LAST_WORDS, self._finish_now)
        else:
            self._last = (answer, code, reason)
            self._finish_now()

    def _finish_now(self) -> None:
        if self._last is None or self.state == CLOSED:
            return
        answer, code, reason = self._last
        self._last = None
        if self.state == OPEN:
            self.transport.write(answer)
        self._tell(code, reason)
        self._end(linger=True)

    def _end(self, *, linger: bool = False) -> None:
        """Nothing more is read or written; the transport flushes and closes."""
        denied = self.state == CONNECTING
        self.state = CLOSED
        self._parser = None
        self.gone.set()
        self._log("rejected" if denied else "disconnected")
        self.server.timeouts.remove(self, self._bucket)
        self.transport.close(linger=linger)
        self._cancel_later()

    def _cancel_later(self) -> None:
        if self.task is not None and not self.task.done():
            cancel_after(self.server.application_close_timeout, self.task)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.server.session_ended(self, task)
        failed = not task.cancelled() and task.exception() is not None
        if self.state == CONNECTING:
            if self._denial is not None and self._denial.head_sent:
                self.transport.abort()
            elif task.cancelled():
                self._refuse(503, RESTART_REASON)
            else:
                self._refuse(500, "Internal server error")
        elif self._last is not None:
            self._finish_now()
        elif self.state == OPEN:
            self.close(frames.INTERNAL_ERROR if failed else frames.NORMAL, "")

    def drain(self) -> None:
        """The server is shutting down."""
        if self.state == OPEN:
            self.close(frames.RESTARTING, RESTART_REASON)
            self._tell(frames.RESTARTING, RESTART_REASON)
            self.gone.set()
        elif self.state == CONNECTING and self._denial is None:
            self._refuse(503, RESTART_REASON, (b"retry-after", b"1"))

    def _log(self, action: str) -> None:
        self.server.log_action("websocket", action, self.transport.peer, path=self.path)

    @property
    def is_idle(self) -> bool:
        return False


def accept_key(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (section 4.2.2)."""
    digest = hashlib.sha1(key + GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def _handshake_problem(head: RequestHead) -> Any:
    """Status, detail and headers of the refusal, or None for a valid request (section 4.2.1)."""
    if head.method != b"GET" or not head.minor or head.has_body:
        return 400, "A WebSocket handshake is a GET of HTTP/1.1 without a body."
    if head.get(b"sec-websocket-version") != [b"13"]:
        return 426, "Version 13 is spoken here.", (b"sec-websocket-version", b"13")
    keys = head.get(b"sec-websocket-key")
    try:
        valid = len(keys) == 1 and len(binascii.a2b_base64(keys[0], strict_mode=True)) == 16
    except binascii.Error:
        valid = False
    return None if valid else (400, "Sec-WebSocket-Key is not 16 bytes in base64.")
