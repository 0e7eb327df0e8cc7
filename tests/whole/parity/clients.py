"""Clients that say in one sentence what they have seen instead of what was expected."""

import asyncio
import contextlib
import json
import secrets
import socket as sockets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import websockets

from .contestants import Server, User
from .outcomes import NotOffered, Seen

SOON: Final = 5.0  # seconds for what should take milliseconds
ABSENT: Final = "/ws/there-is-no-such-path"
CSRF: Final = "c" * 32
PATIENCE: Final = 10.0  # seconds without a byte
SMALL: Final = 4_096  # the receive buffer of who doesn't read


def new_topic(kind: str = "public") -> str:
    """A topic that no other check uses."""
    return f"{kind}.t{secrets.token_hex(6)}"


@asynccontextmanager
async def within(seconds: float, otherwise: str) -> AsyncIterator[None]:
    """Give the block so long; then `otherwise` was seen."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Seen(otherwise) from None


async def until(condition: Callable[[], Any], seconds: float, otherwise: str) -> Any:
    """Wait until it is true; the value."""
    async with within(seconds, otherwise):
        while not (value := condition()):
            await asyncio.sleep(0.02)
    return value


# -- WebSockets


class Socket:
    """An open WebSocket."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send(self, value: Any) -> None:
        """A JSON value as a text frame."""
        await self.send_raw(json.dumps(value))

    async def send_raw(self, message: str | bytes) -> None:
        """A text or a binary frame."""
        try:
            await self.connection.send(message)
        except websockets.ConnectionClosed as error:
            raise Seen(f"The socket was closed with {code_of(error)}.") from None

    async def receive_raw(self, seconds: float = SOON) -> str | bytes:
        """The next message, whatever it is."""
        async with within(seconds, "No answer came."):
            try:
                return await self.connection.recv()
            except websockets.ConnectionClosed as error:
                raise Seen(f"The socket was closed with {code_of(error)}.") from None

    async def receive(self, seconds: float = SOON) -> Any:
        """The next message as JSON; heartbeats are passed over."""
        async with within(seconds, "No answer came."):
            while is_heartbeat(message := await self.receive_raw(seconds + 1)):
                pass
        try:
            return json.loads(message)
        except ValueError:
            raise Seen("An answer was not JSON.") from None

    async def ask(self, value: Any) -> Any:
        """Send, and receive."""
        await self.send(value)
        return await self.receive()

    async def closed(self, seconds: float = SOON) -> int:
        """Wait until the server closes the socket; with which code."""
        async with within(seconds, f"The socket was still open after {seconds:g} s."):
            try:
                while True:
                    await self.connection.recv()
            except websockets.ConnectionClosed as error:
                return code_of(error)

    async def silent(self, seconds: float = 0.4) -> bool:
        """Whether nothing comes but heartbeats."""
        try:
            async with asyncio.timeout(seconds):
                while is_heartbeat(await self.connection.recv()):
                    pass
        except (TimeoutError, websockets.ConnectionClosed):
            return True
        return False


def is_heartbeat(message: str | bytes) -> bool:
    """The chapter's "ping", or ours."""
    return message in ("ping", '"ping"') or (
        '"ping"' in str(message) and json.loads(message) == {"type": "ping"}
    )


def code_of(error: websockets.ConnectionClosed) -> int:
    """The code of the close frame; 1006 where none came."""
    return error.rcvd.code if error.rcvd is not None else 1006


def signed_in(user: User | None) -> dict[str, str]:
    """The session cookie, as a browser sends it."""
    return {} if user is None else {"Cookie": f"sessionid={user.session}"}


def by_all_means(user: User | None) -> dict[str, str]:
    """The access token, and the session with a CSRF token, for those who know no tokens."""
    if user is None:
        return {}
    return {
        "Authorization": f"Bearer {user.token}",
        "Cookie": f"sessionid={user.session}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
    }


def dial(server: Server, path: str, **options: Any) -> Any:
    """A WebSocket client of a page of the same site, without pings of its own."""
    options = {"ping_interval": None, "origin": server.url, **options}
    return websockets.connect(f"{server.ws_url}{path}", proxy=None, open_timeout=SOON, **options)


async def handshake(server: Server, path: str, user: User | None = None, **options: Any) -> int:
    """The status that a handshake is answered with; 0 where no answer comes."""
    headers = {**signed_in(user), **options.pop("headers", {})}
    try:
        async with dial(server, path, additional_headers=headers, **options):
            return 101
    except websockets.InvalidStatus as error:
        return int(error.response.status_code)
    except (websockets.InvalidHandshake, OSError, EOFError):
        return 0


@asynccontextmanager
async def websocket(
    server: Server, path: str, user: User | None = None, **options: Any
) -> AsyncIterator[Socket]:
    """An open WebSocket. One that is refused as if there were no such path is not offered."""
    headers = {**signed_in(user), **options.pop("headers", {})}
    try:
        connection = await dial(server, path, additional_headers=headers, **options)
    except websockets.InvalidStatus as error:
        status = error.response.status_code
    except (websockets.InvalidHandshake, OSError, EOFError):
        status = 0
    else:
        status = 101
    if status != 101:
        if status == await handshake(server, ABSENT, user):
            raise NotOffered(f"{path.partition('?')[0]} does not open.")
        raise Seen(f"The handshake was answered with {status or 'nothing'}.")
    async with connection:
        yield Socket(connection)


async def refused(server: Server, path: str, user: User | None = None, **options: Any) -> None:
    """The handshake has to be refused, by an HTTP answer or at the latest by a close at once."""
    status = await handshake(server, path, user, **options)
    if status == 101:
        raise Seen("The handshake was accepted.")
    if status not in (401, 403):
        raise Seen(f"The handshake was answered with {status or 'nothing'}.")


# -- server-sent events


@dataclass
class Event:
    """One event as it was sent; None for a field that was not."""

    data: str | None = None
    id: str | None = None
    event: str | None = None
    comment: str | None = None
    retry: str | None = None

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.data or "")
        except ValueError:
            raise Seen("An event's data was not JSON.") from None


async def lines_of(response: httpx.Response) -> AsyncIterator[str]:
    """Lines as the standard of server-sent events knows them: httpx ends them at U+2028 too."""
    rest = b""
    async for piece in response.aiter_raw():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()


class Stream:
    """An event stream that is read one event at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.headers = response.headers
        self._lines = lines_of(response)
        self.last_id: str | None = None

    async def next_block(self, seconds: float = SOON) -> Event:
        """The next block of lines, comments and bare ids included."""
        async with within(seconds, "No event came."):
            try:
                return await self._block()
            except StopAsyncIteration:
                raise Seen("The stream ended.") from None
            except httpx.TransportError:
                raise Seen("The stream was cut.") from None

    async def _block(self) -> Event:
        event, empty = Event(), True
        while True:
            line = await anext(self._lines)
            if not line:
                if empty:
                    continue
                if event.id is not None:
                    self.last_id = event.id
                return event
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not name and empty:  # a comment of its own needs no blank line
                event.comment = value
                return event
            empty = False
            if not name:
                event.comment = value
            elif name == "data":
                event.data = value if event.data is None else f"{event.data}\n{value}"
            elif name in ("id", "event", "retry"):
                setattr(event, name, value)

    async def next(self, seconds: float = SOON) -> Event:
        """The next event that has data; without data a browser dispatches nothing."""
        async with within(seconds, "No event came."):
            while (event := await self.next_block(seconds + 1)).data is None:
                pass
            return event

    async def next_or_end(self, seconds: float = SOON) -> Event | None:
        """The next event that has data; None at the end of the stream."""
        async with within(seconds, "No event came."):
            try:
                while (event := await self._block()).data is None:
                    pass
            except (StopAsyncIteration, httpx.TransportError):
                return None
            return event

    async def take(self, count: int, seconds: float = SOON) -> list[Any]:
        """The data of so many events."""
        return [(await self.next(seconds)).json for _ in range(count)]

    async def silent(self, seconds: float = 0.4) -> bool:
        """Whether no event comes."""
        try:
            async with asyncio.timeout(seconds):
                while (await self._block()).data is None:
                    pass
        except (TimeoutError, StopAsyncIteration, httpx.TransportError):
            return True
        return False

    async def rest(self, seconds: float = SOON) -> list[Event]:
        """All events with data up to the end of the stream."""
        found = []
        async with within(seconds, "The stream did not end."):
            while True:
                try:
                    event = await self._block()
                except StopAsyncIteration:
                    return found
                except httpx.TransportError:
                    raise Seen("The stream was cut.") from None
                if event.data is not None:
                    found.append(event)


@asynccontextmanager
async def http(
    server: Server, user: User | None = None, buffer: int | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A program's client; its requests may take long."""
    headers = {"Accept-Encoding": "identity", **by_all_means(user)}
    options = [(sockets.SOL_SOCKET, sockets.SO_RCVBUF, buffer)] if buffer else None
    transport = httpx.AsyncHTTPTransport(trust_env=False, socket_options=options)
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, timeout=40, trust_env=False, transport=transport
    ) as client:
        yield client


def offered(response: httpx.Response, path: str) -> None:
    """404 and 405 mean that there is no such path."""
    if response.status_code in (404, 405):
        raise NotOffered(f"{path.partition('?')[0]} is answered with {response.status_code}.")


def is_ok(response: httpx.Response, status: int = 200) -> None:
    """Any other status was not expected."""
    if response.status_code != status:
        raise Seen(f"The answer was {response.status_code} instead of {status}.")


async def call(
    server: Server,
    method: str,
    path: str,
    user: User | None = None,
    *,
    may_be_missing: bool = False,
    **options: Any,
) -> httpx.Response:
    """A whole answer; 404 and 405 are "not offered" unless they may be what is asked for."""
    async with http(server, user) as client:
        try:
            response = await client.request(method, path, timeout=PATIENCE, **options)
        except httpx.TimeoutException:
            raise Seen("No answer came.") from None
        except httpx.TransportError:
            raise Seen("The connection was closed before the answer was complete.") from None
    if not may_be_missing:
        offered(response, path)
    return response


@asynccontextmanager
async def stream(
    server: Server, path: str, user: User | None = None, last: str | None = None, **headers: str
) -> AsyncIterator[Stream]:
    """An open event stream."""
    more = {"Accept": "text/event-stream", **headers}
    if last is not None:
        more["Last-Event-ID"] = last
    async with http(server, user) as client:
        try:
            context = client.stream("GET", path, headers=more)
            response = await context.__aenter__()
        except httpx.TimeoutException:
            raise Seen("No answer came.") from None
        except httpx.TransportError:
            raise Seen("The connection was closed before the answer began.") from None
        try:
            offered(response, path)
            is_ok(response)
            yield Stream(response)
        finally:
            await context.__aexit__(None, None, None)


def events_path(topic: str) -> str:
    """Where a topic is read and published."""
    return f"/topics/{topic}/events"


@asynccontextmanager
async def listening(
    server: Server, topic: str, user: User | None = None, last: str | None = None
) -> AsyncIterator[Stream]:
    """An event stream of a topic."""
    async with stream(server, events_path(topic), user, last) as opened:
        yield opened


async def publish(server: Server, topic: str, data: Any, user: str = "alice", **query: str) -> str:
    """Publish by POST; the event's id, empty where there is none."""
    path = events_path(topic)
    response = await call(server, "POST", path, server.users[user], json=data, params=query)
    is_ok(response, 201)
    return str(response.json().get("id", ""))


class Publisher:
    """Publishes many events over one connection."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def publish(self, topic: str, data: Any) -> str:
        """Publish; again after an answer that says it did not work. The event's id."""
        async with within(20, "Publishing failed for 20 s."):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    response = await self.client.post(events_path(topic), json=data)
                    offered(response, events_path(topic))
                    if response.status_code == 201:
                        return str(response.json().get("id", ""))
                await asyncio.sleep(0.1)


@asynccontextmanager
async def publishing(server: Server, user: str = "alice") -> AsyncIterator[Publisher]:
    """A publisher."""
    async with http(server, server.users[user]) as client:
        yield Publisher(client)


async def resumable(event: Event) -> str:
    """The id to come back with; events without one can't be resumed after."""
    if not event.id:
        raise NotOffered("Events carry no id.")
    return event.id


# -- raw sockets, for clients that behave badly


@contextmanager
def raw(server: Server, buffer: int = 0) -> Iterator[sockets.socket]:
    """A connected socket with a receive buffer of this size."""
    with sockets.socket() as client:
        if buffer:
            client.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, buffer)
        client.settimeout(SOON)
        client.connect(("127.0.0.1", server.port))
        yield client


def request(server: Server, path: str, headers: dict[str, str], method: str = "GET") -> bytes:
    """A request's head."""
    lines = {"Host": f"127.0.0.1:{server.port}", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode()


def read_head(client: sockets.socket) -> tuple[int, bytes]:
    """A response's status, and what came after its head."""
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            piece = client.recv(1_024)
        except OSError:
            piece = b""
        if not piece:
            raise Seen("The connection was closed before the answer began.")
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


@contextmanager
def raw_websocket(
    server: Server, path: str, user: User | None, buffer: int = 0
) -> Iterator[sockets.socket]:
    """A WebSocket whose client does nothing by itself: no reading, no pong."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "Origin": server.url,
        **signed_in(user),
    }
    with raw(server, buffer) as client:
        client.sendall(request(server, path, upgrade))
        status, _ = read_head(client)
        if status != 101:
            raise Seen(f"The handshake was answered with {status}.")
        yield client


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2)
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8)
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + payload
