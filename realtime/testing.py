"""What an app's own tests need: clients for its consumers and streams, and a log to look into.

    async def test_chat():
        async with websocket(application, "/ws/topics/room.a", user=alice) as socket:
            await apublish("room.a", {"text": "hi"})
            assert (await socket.receive_json())["data"] == {"text": "hi"}

        async with event_stream(application, "/topics/room.a/events", user=alice) as stream:
            await apublish("room.a", {"text": "hi"})
            assert (await stream.receive()).json() == {"text": "hi"}

    def test_view(client):
        with memory_log() as log:
            client.post("/orders/")
        assert [event.type for event in log.events("user.1")] == ["ordered"]

    async def test_nothing_blocks():
        with no_blocking():  # best in a fixture for all tests
            await our_view(request)

The clients speak ASGI to the application in the test's own process and event loop. Database rows
are looked up in other threads: use `pytest.mark.django_db(transaction=True)` or a
TransactionTestCase, and a test database in a file.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from django.conf import settings as django_settings
from django.test import AsyncClient, override_settings

from .eventlog.memory import MemoryLog
from .server.watchdog import LoopWatchdog
from .utils.aio import cancel_and_wait
from .utils.transactions import IN_TRANSACTION, is_in_transaction

ASGIApplication: TypeAlias = Callable[..., Coroutine[Any, Any, None]]
Scope: TypeAlias = dict[str, Any]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

WAIT_SECONDS: Final = 20.0  # a receive that takes longer fails the test; CI may stand still


class ConnectionRefused(Exception):
    """The handshake or request was answered with an error."""

    def __init__(self, status: int, detail: str, code: int | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail, self.code = status, detail, code


class ConnectionClosed(Exception):
    """The application has closed the connection."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code, self.reason = code, reason


class EventLoopBlocked(AssertionError):
    """Something has held the event loop; the message has its stack."""


class _Connection:
    """One run of an ASGI application, and what it has sent."""

    def __init__(self, application: ASGIApplication, scope: Mapping[str, Any]) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outgoing: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._task = asyncio.create_task(application(scope, self.incoming.get, self._outgoing.put))
        self._task.add_done_callback(lambda _: self._outgoing.put_nowait(None))

    async def next(self, timeout: float) -> dict[str, Any]:
        """Return the application's next message; raise its error, TimeoutError if none came."""
        try:
            # Not in another task: that takes a message also where this one is cancelled.
            async with asyncio.timeout(timeout):
                message = await self._outgoing.get()
        except TimeoutError:
            raise TimeoutError(f"The application sent nothing within {timeout} s.") from None
        if message is None:
            self._outgoing.put_nowait(None)  # for the next call
            self._task.result()
            raise ConnectionClosed(1006, "The application has ended.")
        return message

    async def end(self, message: dict[str, Any]) -> None:
        """Tell the application that its peer has gone, and wait for it."""
        self.incoming.put_nowait(message)
        try:
            done, _ = await asyncio.wait([self._task], timeout=WAIT_SECONDS)
        finally:
            await cancel_and_wait(self._task)  # if it has not ended
        if not done:
            raise TimeoutError(f"The application did not end {WAIT_SECONDS} s after its peer left.")
        self._task.result()


class WebSocket:
    """A test's end of a WebSocket."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.closed: ConnectionClosed | None = None

    async def send_json(self, value: Any) -> None:
        """Send a JSON value as a text frame."""
        await self.send(json.dumps(value))

    async def send(self, frame: str | bytes) -> None:
        """Send a text or a binary frame."""
        kind = "text" if isinstance(frame, str) else "bytes"
        self._connection.incoming.put_nowait({"type": "websocket.receive", kind: frame})

    async def receive_json(self, timeout: float = WAIT_SECONDS) -> Any:
        """Return the next frame as a JSON value; raises `ConnectionClosed`."""
        return json.loads(await self.receive(timeout))

    async def receive(self, timeout: float = WAIT_SECONDS) -> str | bytes:
        """Return the next frame; raise `ConnectionClosed` with the code of a closed socket."""
        message = await self._connection.next(timeout)
        if message["type"] == "websocket.close":
            self.closed = ConnectionClosed(message.get("code", 1000), message.get("reason") or "")
            raise self.closed
        frame = message.get("text")
        return frame if frame is not None else bytes(message["bytes"])

    async def receive_nothing(self, timeout: float = 0.1) -> bool:
        """Whether nothing comes for `timeout` seconds."""
        with suppress(TimeoutError):
            await self.receive(timeout)
            return False
        return True


@dataclass(frozen=True)
class ServerSentEvent:
    """An event as a browser sees it."""

    event: str
    data: str
    id: str

    def json(self) -> Any:
        """Return the data as a JSON value."""
        return json.loads(self.data)


class EventStream:
    """A test's end of a stream of server-sent events."""

    def __init__(self, connection: _Connection, headers: Headers) -> None:
        self.headers = {name.decode().lower(): value.decode("latin1") for name, value in headers}
        self.last_event_id = ""
        self._connection = connection
        self._buffer = ""

    async def receive(self, timeout: float = WAIT_SECONDS) -> ServerSentEvent:
        """Return the next event with data; comments are passed over. Raises `ConnectionClosed`."""
        event = None
        while event is None:
            while "\n\n" not in self._buffer:
                message = await self._connection.next(timeout)
                self._buffer += bytes(message.get("body", b"")).decode()
                if not message.get("more_body") and "\n\n" not in self._buffer:
                    raise ConnectionClosed(1000, "The stream has ended.")
            block, _, self._buffer = self._buffer.partition("\n\n")
            event = self._dispatch(block)
        return event

    def _dispatch(self, block: str) -> ServerSentEvent | None:
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        self.last_event_id = fields.get("id", [self.last_event_id])[-1]
        if "data" not in fields:
            return None
        name = fields.get("event", ["message"])[-1]
        return ServerSentEvent(name, "\n".join(fields["data"]), self.last_event_id)


@asynccontextmanager
async def websocket(
    application: ASGIApplication,
    path: str,
    *,
    user: Any = None,
    token: str | None = None,
    headers: Headers = (),
    subprotocols: Sequence[str] = (),
) -> AsyncIterator[WebSocket]:
    """Open a WebSocket, signed in as `user` (by a real session) or with an access token.

    Raises `ConnectionRefused` with status and detail if the application won't have it.
    """
    scope = await _scope("websocket", path, user, token, headers)
    scope |= {"subprotocols": [*subprotocols], "extensions": {"websocket.http.response": {}}}
    connection = _Connection(application, scope)
    connection.incoming.put_nowait({"type": "websocket.connect"})
    socket = WebSocket(connection)
    try:
        await _accepted(connection)
        yield socket
    finally:
        code = socket.closed.code if socket.closed is not None else 1000
        await connection.end({"type": "websocket.disconnect", "code": code})


@asynccontextmanager
async def event_stream(
    application: ASGIApplication,
    path: str,
    *,
    user: Any = None,
    token: str | None = None,
    headers: Headers = (),
    last_event_id: str | None = None,
) -> AsyncIterator[EventStream]:
    """Open a stream of server-sent events; see `websocket`."""
    extra = [(b"accept", b"text/event-stream"), *headers]
    if last_event_id is not None:
        extra.append((b"last-event-id", last_event_id.encode()))
    scope = await _scope("http", path, user, token, extra)
    connection = _Connection(application, {**scope, "method": "GET", "http_version": "1.1"})
    connection.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    try:
        start = await _accepted(connection)
        yield EventStream(connection, start["headers"])
    finally:
        await connection.end({"type": "http.disconnect"})


@contextmanager
def no_blocking(seconds: float = 0.1) -> Iterator[None]:
    """Fail with `EventLoopBlocked` if anything holds the running event loop for longer.

    Whatever it is: a sleep, a query, a request to elsewhere, a long calculation. For a server in a
    process of its own, set `REALTIME_BLOCKING_SECONDS` in its environment and look into its log.
    """
    reports: list[str] = []
    watch = LoopWatchdog(asyncio.get_running_loop(), seconds, reports.append)
    watch.start()
    try:
        yield
    finally:
        watch.stop()
    if reports:
        raise EventLoopBlocked("\n\n".join(reports))


@contextmanager
def memory_log() -> Iterator[MemoryLog]:
    """Publish to a log in memory, and look at what came; no database is needed."""
    log = MemoryLog()
    realtime = {**getattr(django_settings, "REALTIME", {}), "EVENT_LOG": lambda: log}
    with override_settings(REALTIME=realtime):
        yield log


async def _accepted(connection: _Connection) -> dict[str, Any]:
    message = await connection.next(WAIT_SECONDS)
    if message["type"] == "websocket.accept" or message.get("status") == 200:
        return message
    if message["type"] == "websocket.close":
        raise ConnectionRefused(403, message.get("reason") or "", message.get("code"))
    detail = bytes((await connection.next(WAIT_SECONDS)).get("body", b"")).decode()
    with suppress(ValueError, KeyError, TypeError):
        detail = json.loads(detail)["detail"]
    if await is_in_transaction():
        detail = f"{IN_TRANSACTION} The answer was: {detail}"
    raise ConnectionRefused(message["status"], detail)


async def _scope(kind: str, path: str, user: Any, token: str | None, headers: Headers) -> Scope:
    sent = [(b"host", b"testserver"), *headers]
    if user is not None:
        client = AsyncClient()
        await client.aforce_login(user)
        sent.append((b"cookie", client.cookies.output([], header="").strip().encode()))
    if token is not None:
        sent.append((b"authorization", f"Bearer {token}".encode()))
    raw_path, _, query = path.partition("?")
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "scheme": "ws" if kind == "websocket" else "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": sent,
        "client": ("127.0.0.1", 1024),
        "server": ("testserver", 80),
    }
