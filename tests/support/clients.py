"""Clients for real sockets."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import httpx
import websockets
from httpx_sse import EventSource, ServerSentEvent


def bearer(token: str) -> dict[str, str]:
    """The header that carries an access token."""
    return {"Authorization": f"Bearer {token}"}


def publish(server: Any, token: str, topic: str, data: Any, **query: str) -> str:
    """Publish by POST; the event's id."""
    url = f"{server.url}/topics/{topic}/events"
    answer = httpx.post(url, json=data, headers=bearer(token), params=query, timeout=20)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@contextlib.contextmanager
def signed_in(server: Any, username: str, password: str = "sesame") -> Iterator[httpx.Client]:
    """A browser's cookies after the login form; it sends the CSRF token too."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        client.get("/login/")
        form = {
            "username": username,
            "password": password,
            "csrfmiddlewaretoken": client.cookies["csrftoken"],
        }
        answer = client.post("/login/", data=form, headers={"Referer": server.url})
        assert answer.status_code == 302, answer.text
        client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
        yield client


def session_cookie(server: Any, username: str) -> dict[str, str]:
    """The Cookie header of a user who has signed in, for a WebSocket."""
    with signed_in(server, username) as client:
        return {"Cookie": f"sessionid={client.cookies['sessionid']}"}


def reset_on_close(socket: Any) -> None:
    """Have a WebSocket end with RST, as that of a peer which crashes."""
    linger = struct.pack("ii", 1, 0)
    connection = socket.transport.get_extra_info("socket")
    connection.setsockopt(SOL_SOCKET, SO_LINGER, linger)


class Stream:
    """An event stream that is read one event at a time, each within a deadline."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.headers = response.headers
        self._events = EventSource(response).aiter_sse()

    async def next(self, seconds: float = 20.0) -> ServerSentEvent:
        """The next event that has data; without data nothing is dispatched, says the standard."""
        async with asyncio.timeout(seconds):
            while not (event := await anext(self._events)).data:
                pass
            return event

    async def take(self, count: int, seconds: float = 20.0) -> list[Any]:
        """The decoded data of the next `count` events."""
        return [json.loads((await self.next(seconds)).data) for _ in range(count)]

    async def ended(self, seconds: float = 20.0) -> None:
        """Wait for the end of the stream."""
        async with asyncio.timeout(seconds):
            async for _ in self._events:
                pass


@asynccontextmanager
async def open_stream(url: str, **options: Any) -> AsyncIterator[Stream]:
    """An open event stream; its request was answered with 200."""
    headers = {"Accept": "text/event-stream", **options.pop("headers", {})}
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("GET", url, headers=headers, **options) as response,
    ):
        if response.status_code != 200:
            await response.aread()
        assert response.status_code == 200, response.text
        yield Stream(response)


def connect(url: str, **options: Any) -> Any:
    """A WebSocket client without a proxy and without pings of its own."""
    options.setdefault("ping_interval", None)
    options.setdefault("open_timeout", 20)
    return websockets.connect(url, proxy=None, **options)


async def receive(socket: Any, seconds: float = 20.0) -> Any:
    """The next JSON frame that is not a heartbeat."""
    async with asyncio.timeout(seconds):
        while True:
            message = json.loads(await socket.recv())
            if message != {"type": "ping"}:
                return message


async def send(socket: Any, value: Any) -> None:
    """Send a value as a JSON text frame."""
    await socket.send(json.dumps(value))


async def ask(socket: Any, value: Any) -> Any:
    """Send a JSON frame and receive the next one."""
    await send(socket, value)
    return await receive(socket)


async def close_code(socket: Any, seconds: float = 20.0) -> int | None:
    """Wait until the server closes the socket; its code."""
    async with asyncio.timeout(seconds):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


async def refusal(url: str, **options: Any) -> tuple[int, Any]:
    """The HTTP status and JSON body that a refused handshake is answered with."""
    try:
        async with connect(url, **options):
            raise AssertionError("The handshake was accepted.")
    except websockets.InvalidStatus as error:
        return error.response.status_code, json.loads(error.response.body)


async def eventually(condition: Callable[[], Any], seconds: float = 20.0, what: str = "it") -> Any:
    """Await until `condition` returns something true; fail after `seconds` of the loop's clock."""
    now = asyncio.get_running_loop().time
    deadline = now() + seconds
    while not (value := condition()):
        if now() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        await asyncio.sleep(0.01)
    return value
