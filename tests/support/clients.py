"""What tests put around the code: clients for real sockets, and fakes that fail at random."""

import asyncio
import contextlib
import itertools
import json
import random
import selectors
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from socket import SO_LINGER, SOL_SOCKET
from types import SimpleNamespace
from typing import Any

import httpx
import websockets
from channels.layers import channel_layers
from django.test import override_settings
from httpx_sse import EventSource, ServerSentEvent

from realtime.delivery import hub as hub_module
from realtime.delivery.bus.base import PEERS_TOPIC, Heartbeat
from realtime.delivery.bus.channels import to_message
from realtime.eventlog.base import EventLog, NewEvent, Page
from realtime.eventlog.memory import MemoryLog
from realtime.events.event import Event
from realtime.events.position import START, Position

from .databases import new_database_url
from .servers import ROOT, TOKENS, environment, serving

# -- HTTP and WebSocket clients


def bearer(token: str) -> dict[str, str]:
    """The header that carries an access token."""
    return {"Authorization": f"Bearer {token}"}


def publish(server: Any, token: str, topic: str, data: Any, **query: str) -> str:
    """Publish by POST; the event's id."""
    url = f"{server.url}/topics/{topic}/events"
    answer = httpx.post(url, json=data, headers=bearer(token), params=query, timeout=10)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@contextlib.contextmanager
def signed_in(server: Any, username: str, password: str = "sesame") -> Iterator[httpx.Client]:
    """A browser's cookies after the login form; it sends the CSRF token too."""
    with httpx.Client(base_url=server.url, timeout=10) as client:
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

    async def next(self, seconds: float = 10.0) -> ServerSentEvent:
        """The next event that has data; without data nothing is dispatched, says the standard."""
        async with asyncio.timeout(seconds):
            while not (event := await anext(self._events)).data:
                pass
            return event

    async def take(self, count: int, seconds: float = 10.0) -> list[Any]:
        """The decoded data of the next `count` events."""
        return [json.loads((await self.next(seconds)).data) for _ in range(count)]

    async def ended(self, seconds: float = 10.0) -> None:
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
    return websockets.connect(url, proxy=None, **options)


async def receive(socket: Any, seconds: float = 10.0) -> Any:
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


async def close_code(socket: Any, seconds: float = 10.0) -> int | None:
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


async def eventually(condition: Callable[[], Any], seconds: float = 10.0, what: str = "it") -> Any:
    """Await until `condition` returns something true; fail after `seconds` of the loop's clock."""
    now = asyncio.get_running_loop().time
    deadline = now() + seconds
    while not (value := condition()):
        if now() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        await asyncio.sleep(0.01)
    return value


# -- sites


def shortened(site: Mapping[str, str], constants: Mapping[str, Any], **more: str) -> dict[str, str]:
    """The environment of a site whose REALTIME settings are overridden."""
    ours = {"DJANGO_SETTINGS_MODULE": "tests.site_settings", "TEST_REALTIME": json.dumps(constants)}
    return {**site, **ours, **more}


_SHELL = """
import json, sys, django
django.setup()
from django.contrib.auth.models import User
from realtime.access.tokens import create_token
for line in sys.stdin:
    result = None
    exec(json.loads(line))
    print(json.dumps(result), flush=True)
"""


class SiteShell:
    """Another process of a site, which runs what it is told; a management command for each thing
    takes a second. It is started when it is first needed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    @cached_property
    def process(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _SHELL],
            cwd=ROOT,
            env=environment({"DJANGO_SETTINGS_MODULE": "project.settings", **self._env}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str) -> Any:
        """Run statements; the value that they give to `result`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"This failed in the site's shell: {code}"
        return json.loads(answer)

    def make_token(self, username: str, expires_in: float | None = None) -> str:
        """A new access token of a user."""
        code = f"user = User.objects.get(username={username!r})\n"
        return str(self.run(f"{code}result = create_token(user, expires_in={expires_in})[0]"))

    def close(self) -> None:
        """End it, and see that it ends."""
        if "process" in vars(self):
            self.process.communicate(timeout=20)


@contextlib.contextmanager
def site_for_module(
    template: Mapping[str, str],
    constants: Mapping[str, Any],
    *arguments: str,
    **more: str,
) -> Iterator[SimpleNamespace]:
    """A served site that several tests share: tokens of its users, and where it is."""
    url = new_database_url(template["DATABASE_URL"])
    with tempfile.TemporaryDirectory(prefix="realtime-site-") as data:
        env = shortened({"DATABASE_URL": url, "DATA_DIR": data}, constants, **more)

        with serving(env, *arguments) as server, contextlib.closing(SiteShell(env)) as shell:
            yield SimpleNamespace(
                server=server,
                url=server.url,
                ws_url=server.ws_url,
                log=server.log,
                shell=shell,
                tokens=TOKENS,
                env=env,
            )


# -- a clock that does not wait


class _Skipping(selectors.DefaultSelector):
    """A selector that does not sleep: it moves the loop's clock instead."""

    loop: "InstantLoop"

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("Every task waits for another one: a deadlock.")
            self.loop.now += max(0.0, timeout)
        return events


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop whose sleeps take no time. For code without threads or sockets; what it runs
    is the same in each run, so that what hypothesis finds can be found again."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Skipping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


# -- fakes that fail at random


class Noise:
    """The bad luck of one run: how likely things are, and a source of chance."""

    def __init__(
        self,
        seed: int = 0,
        *,
        drop: float = 0.0,
        repeat: float = 0.0,
        delay: float = 0.0,
        longest: float = 0.0,
        fail: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.drop = drop
        self.repeat = repeat
        self.delay = delay
        self.longest = longest  # seconds of a delay
        self.fail = fail

    def happens(self, likelihood: float) -> bool:
        return self.random.random() < likelihood

    def seconds(self) -> float:
        """A delay, if one is due; else none."""
        return self.random.uniform(0, self.longest) if self.happens(self.delay) else 0.0

    async def wait(self) -> None:
        """A delay, if one is due; the loop gets its turn in any case."""
        await asyncio.sleep(self.seconds())


class FakeLayer:
    """The Channels layer API; drops, repeats, delays and so reorders, fails, hangs and forgets."""

    extensions = ["groups"]

    def __init__(self, noise: Noise | None = None) -> None:
        self.noise = noise or Noise()
        self.down = False
        self.hanging = False
        self.hung = False  # ever, while called
        self.groups: dict[str, set[str]] = {}
        self.channels: dict[str, asyncio.Queue[Any]] = {}
        self.calls: list[tuple[str, str]] = []

    @property
    def topics(self) -> dict[str, set[str]]:
        """The groups without that of the processes' heartbeats."""
        return {name: members for name, members in self.groups.items() if name != PEERS_TOPIC}

    async def new_channel(self, prefix: str = "specific") -> str:
        channel = f"{prefix}.{len(self.channels)}"
        self.channels[channel] = asyncio.Queue()
        return channel

    async def receive(self, channel: str) -> Any:
        if self.down:
            raise ConnectionError("The layer is down.")
        message = await self.channels[channel].get()
        if isinstance(message, Exception):
            raise message
        return message

    async def group_add(self, group: str, channel: str) -> None:
        await self._respond("group_add", group)
        self.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._respond("group_discard", group)
        members = self.groups.get(group, set())
        members.discard(channel)
        if not members:
            self.groups.pop(group, None)

    async def group_send(self, group: str, message: Any) -> None:
        await self._respond("group_send", group)
        loop = asyncio.get_running_loop()
        for channel in self.groups.get(group, ()):
            if self.noise.happens(self.noise.drop):
                continue
            for _ in range(2 if self.noise.happens(self.noise.repeat) else 1):
                delay = self.noise.seconds()
                loop.call_later(delay, self.channels[channel].put_nowait, message)

    def fail(self) -> None:
        """Go down: what is in flight is lost, who listens gets an error."""
        self.down = True
        for queue in self.channels.values():
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(ConnectionError("The layer went down."))

    def recover(self) -> None:
        """Come back empty, as a restarted Redis does."""
        self.down = False
        self.groups.clear()

    async def _respond(self, call: str, group: str) -> None:
        self.calls.append((call, group))
        if self.hanging:
            self.hung = True
            await asyncio.Event().wait()
        await asyncio.sleep(min(self.noise.seconds(), 0.5))
        if self.down:
            raise ConnectionError("The layer is down.")


class LogFailed(Exception):
    """What the fake log raises."""


class FaultyLog(MemoryLog):
    """A log in memory that can be slow or fail. It remembers which history was ever gone."""

    def __init__(self, noise: Noise | None = None) -> None:
        numbers = itertools.count(1)
        super().__init__(lambda: f"epoch{next(numbers):03}")
        self.noise = noise or Noise()
        self.failing = False
        self.gone: dict[str, dict[str, int]] = {}  # topic -> epoch -> offset of the last one gone
        self.reads = 0

    def put(self, topic: str, type: str, data: str) -> Event:
        """Append one event, at once and without fail."""
        return self.append([NewEvent(topic, type, data)])[0]

    async def aappend(
        self, event: NewEvent, then: Callable[[Event], object] | None = None
    ) -> Event:
        await self._stumble()
        stored = await super().aappend(event, then)
        await self._stumble()  # the answer may be lost after the event was stored
        return stored

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        await self._stumble()
        heads = await super().heads(topics)
        await self._stumble()
        return heads

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        self.reads += 1
        await self._stumble()
        try:
            return await super().read(topic, after, limit)
        finally:
            await self._stumble()

    def drop(self, topic: str, keep: int) -> None:
        """Retention: keep only the newest."""
        kept = self._kept.get(topic, [])
        if dropped := kept[: len(kept) - keep]:
            self.gone.setdefault(topic, {})[dropped[-1].epoch] = dropped[-1].offset
            del kept[: len(dropped)]

    def delete(self, topic: str) -> None:
        """The topic goes, as from the admin; the next event begins a new epoch."""
        head = self._heads.pop(topic, None)
        self._kept.pop(topic, None)
        if head is not None:
            self.gone.setdefault(topic, {})[head.epoch] = 2**63

    def head(self, topic: str) -> Position:
        """Where the topic stands."""
        return self._heads.get(topic, START)

    def was_gone(self, topic: str, position: Position) -> bool:
        """Whether what followed `position` was ever out of reach."""
        gone = self.gone.get(topic, {})
        if position == START:
            return any(last for last in gone.values())
        head = self.head(topic)
        known = position.epoch in gone or head.epoch == position.epoch
        if head.epoch == position.epoch and head.offset < position.offset:
            return True  # never was within reach
        return not known or gone.get(position.epoch, 0) > position.offset

    async def _stumble(self) -> None:
        await self.noise.wait()
        if self.failing or self.noise.happens(self.noise.fail):
            raise LogFailed


def heartbeat_from_elsewhere(
    *, interval: float = 2.0, is_asking: bool = False, answers: Sequence[str] = ()
) -> dict[str, Any]:
    """The heartbeat of another process."""
    return to_message(Heartbeat("another", interval, is_asking, answers))


def from_elsewhere(*events: Event) -> dict[str, Any]:
    """An announcement as another process makes it."""
    return {**to_message(events), "process": "another"}


@contextlib.contextmanager
def stage(
    layer: Any = None, log: EventLog | None = None, **constants: Any
) -> Iterator[tuple[Any, Any]]:
    """Run hubs of the test's own on this layer and log, with these settings."""
    layer = FakeLayer() if layer is None else layer
    log = FaultyLog() if log is None else log
    before = channel_layers.set("default", layer)
    options = {"PRUNE_INTERVAL_SECONDS": None, "EVENT_LOG": lambda: log, **constants}
    try:
        with override_settings(REALTIME=options):
            yield layer, log
    finally:
        if before is None:
            channel_layers.backends.pop("default", None)
        else:
            channel_layers.set("default", before)
        for loop in [loop for loop in hub_module._hubs if loop.is_closed()]:
            del hub_module._hubs[loop]
