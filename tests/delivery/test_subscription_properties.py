"""Whatever the channel layer does: each event exactly once, in order, or an explicit reset.

Each example is a script of what happens to a hub in the course of a minute: publishers here and in
other processes, subscribers that come, go and read slowly, retention, deleted topics, a log that
fails, a layer that drops, repeats, delays, hangs and forgets. The clock is not real.
"""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from realtime.delivery import fanout
from realtime.delivery.hub import running_hubs
from realtime.delivery.publish import publish_now
from realtime.delivery.subscription import Subscription
from realtime.delivery.synced import Sink
from realtime.delivery.topic_subscriber import Reset
from realtime.eventlog.base import NewEvent
from realtime.eventlog.database import DatabaseLog
from realtime.events.event import Event
from realtime.events.position import OLDEST, START, UNBORN, Position
from realtime.utils.aio import spawn

from ..support.clients import eventually
from ..support.clock import InstantLoop
from ..support.fakes import FakeLayer, FaultyLog, LogFailed, Noise
from ..support.hubs import from_elsewhere, stage
from ..support.lanes import FakeGroup, identity

TOPICS = ["a", "b", "c"]
CONSTANTS = {
    "HEAD_CHECK_SECONDS": 1.0,
    "ANNOUNCE_TIMEOUT_SECONDS": 1.0,
    "GROUP_REFRESH_SECONDS": 5.0,
    "LOG_PAGE_EVENTS": 5,
    "TAIL_EVENTS": 8,
    "EPHEMERAL_QUEUE": 3,
    "ANNOUNCE_QUEUE": 10,
}


def encode(event: Event) -> bytes:
    """A line, as several go out together."""
    fields = (event.topic, event.type, event.data, event.epoch, event.offset)
    return json.dumps(fields).encode() + b"\n"


class Group(FakeGroup):
    """Has each client count what was written to many."""

    def write(self, data: bytes, start: int, stop: int) -> list[int]:
        refused = super().write(data, start, stop)
        for index in {*range(start, stop)} - {*refused}:
            client: Any = self.lanes[index]
            if client is not None:
                client.synced += 1
                client.together += data.count(b"\n") > 1
        return refused


class Client:
    """A subscriber that stores its position in each topic, checks what it gets, and comes back."""

    def __init__(self, name: str, world: "World", lane: bool, slowness: float) -> None:
        self.name = name
        self.world = world
        self.lane = lane
        self.slowness = slowness
        self.stored: dict[str, Position] = {}
        self.wanted: set[str] = set()  # topics whose events may come
        self.adds: dict[str, object] = {}  # the last one of each topic: it says what is wanted
        self.subscription: Subscription | None = None
        self.reader: asyncio.Task[None] | None = None
        self.adding: list[asyncio.Task[None]] = []
        self.way = world.noise.random.choice([self.iterate, self.read, self.be_called])
        self.writer: asyncio.Task[None] | None = None
        self.writing = False
        self.resets = 0
        self.got = 0
        self.pushed = 0
        self.synced = 0
        self.together = 0

    # The fast lane

    kind = Group

    @property
    def framing(self) -> Any:
        """None now and then, as for a lane that is not open yet."""
        return None if self.world.noise.happens(0.2) else identity

    def arm(self, body: bytes) -> None:
        raise NotImplementedError

    def try_write(self, data: bytes) -> bool:
        events = [Event(*json.loads(line)) for line in data.splitlines()]
        assert not self.writing, f"{self.name} got {events} past what it is still being sent"
        if self.world.noise.happens(0.5):
            return False
        for each in events:
            self.take(each)
        self.pushed += len(events)
        return True

    # The awaited path

    async def run(self, subscription: Subscription, after: dict[str, Position | None]) -> None:
        async with subscription:
            self.adding = [spawn(self.add(topic, position)) for topic, position in after.items()]
            try:
                await self.way(subscription)
            except LogFailed:
                event("a subscriber's own read failed")
            finally:
                self.writing = False
                for task in self.adding:
                    task.cancel()
                for result in await asyncio.gather(*self.adding, return_exceptions=True):
                    assert result is None or isinstance(result, asyncio.CancelledError), result

    async def iterate(self, subscription: Subscription) -> None:
        async for item in subscription:
            await self.take_and_write(item)

    async def be_called(self, subscription: Subscription) -> None:
        """As a WebSocket does: a task only while there is something."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def write() -> None:
            try:
                async for item in subscription.ready():
                    await self.take_and_write(item)
            except Exception as error:
                if not ended.done():
                    ended.set_exception(error)
            finally:
                self.writing = False
                self.writer = None

        def begin() -> None:
            if subscription.is_closed:
                if not ended.done():
                    ended.set_result(None)
            elif self.writer is None:
                self.writer = spawn(write())

        subscription.on_ready = begin
        begin()
        try:
            await ended
        finally:
            if self.writer is not None:
                self.writer.cancel()
                await asyncio.gather(self.writer, return_exceptions=True)
                self.writer = None  # one that is cancelled before its first step does not say so

    async def take_and_write(self, item: Event | Reset) -> None:
        self.writing = True
        self.take(item)
        await self.write()
        self.writing = False

    async def read(self, subscription: Subscription) -> None:
        while not subscription.is_closed:
            items = await subscription.read(self.world.noise.random.choice([None, 0.0, 2.0]))
            self.writing = True
            for item in items:
                self.take(item)
            await self.write()
            self.writing = False

    async def write(self) -> None:
        if self.world.noise.happens(self.slowness):
            await asyncio.sleep(self.world.noise.random.uniform(0, 3))

    async def add(self, topic: str, after: Position | None) -> None:
        assert self.subscription is not None
        subscription = self.subscription
        mine = object()
        if topic not in subscription.topics:
            self.adds[topic] = mine

        async def on_start(started: Any) -> None:
            await self.world.noise.wait()
            if self.adds[topic] is not mine or topic not in subscription.topics:
                return  # it was removed meanwhile, and perhaps added again
            if not started.recovered:
                assert after is not None
                assert self.world.log.was_gone(topic, after), f"{after} of {topic} was within reach"
                self.resets += 1
            self.stored[topic] = started.position

        self.wanted.add(topic)
        try:
            await subscription.add(topic, after, on_start)
        except LogFailed:
            if self.adds[topic] is mine:  # else it was removed, or has left, and is back since
                self.wanted.discard(topic)
        except (ValueError, RuntimeError):
            pass  # subscribed already, or closed

    def remove(self, topic: str) -> None:
        if self.subscription is not None:
            self.subscription.remove(topic)
            self.wanted.discard(topic)

    def take(self, item: Event | Reset) -> None:
        assert item.topic in self.wanted, f"{self.name} got {item} of a topic it has left"
        here = self.stored[item.topic]
        if isinstance(item, Reset):
            assert self.world.log.was_gone(item.topic, here), f"reset of {here}, within reach"
            self.resets += 1
            self.stored[item.topic] = item.position
            return
        if not item.offset:
            return
        self.got += 1
        if here == OLDEST:
            fits = item.offset == 1 or self.world.log.was_gone(item.topic, Position(item.epoch, 0))
        elif here.epoch == UNBORN:
            fits = item.offset == 1
        else:
            fits = item.position == Position(here.epoch, here.offset + 1)
        assert fits, f"{self.name} stood at {here} of {item.topic} and got {item}"
        self.stored[item.topic] = item.position

    # Coming and going

    async def come(self, after: dict[str, Position | None]) -> None:
        await self.leave()
        self.subscription = Subscription(Sink(encode, self) if self.lane else None)
        self.reader = asyncio.create_task(self.run(self.subscription, after), name=self.name)

    async def leave(self) -> None:
        reader, self.reader = self.reader, None
        if reader is not None:
            if not reader.done() and self.world.noise.happens(0.5):
                assert self.subscription is not None
                self.subscription.close()
                self.wanted.clear()
                await reader
            else:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                assert reader.cancelled() or reader.exception() is None, reader
        if self.subscription is not None:
            self.subscription.close()  # also where the reader was cancelled before its first step
        self.wanted.clear()
        self.subscription = None


class World:
    """A hub with its log and layer, clients, and publishers in this process and in others."""

    def __init__(self, log: FaultyLog, layer: FakeLayer, noise: Noise) -> None:
        self.log = log
        self.layer = layer
        self.noise = noise
        self.background: set[asyncio.Task[None]] = set()
        self.count = 0

    def begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self.background.add(task)

    async def publish(self, topic: str, count: int, here: bool) -> None:
        for _ in range(count):
            self.count += 1
            try:
                if here:
                    await publish_now(topic, self.count)
                else:
                    [event] = await self.log.aappend([NewEvent(topic, "message", str(self.count))])
                    async with asyncio.timeout(1):
                        await self.layer.group_send(topic, from_elsewhere(event))
            except (LogFailed, ConnectionError, TimeoutError):
                pass

    async def ephemeral(self, topic: str) -> None:
        await publish_now(topic, "typing", ephemeral=True)

    async def log_fails(self, seconds: float) -> None:
        self.log.failing = True
        await asyncio.sleep(seconds)
        self.log.failing = False

    async def layer_fails(self, seconds: float) -> None:
        self.layer.fail()
        await asyncio.sleep(seconds)
        self.layer.recover()

    async def layer_hangs(self, seconds: float) -> None:
        self.layer.hanging = True
        await asyncio.sleep(seconds)
        self.layer.hanging = False


seconds = st.floats(0, 5, allow_nan=False)
topics = st.sampled_from(TOPICS)
clients = st.integers(0, 3)
starts = st.sampled_from(["stored", "live", "oldest", "start", "elsewhere", "future"])
steps = st.one_of(
    st.tuples(st.just("publish"), topics, st.integers(1, 12), st.booleans()),
    st.tuples(st.just("publish"), topics, st.integers(1, 12), st.booleans()),
    st.tuples(st.just("come"), clients, st.lists(topics, min_size=1, unique=True), starts),
    st.tuples(st.just("leave"), clients),
    st.tuples(st.just("add"), clients, topics, starts),
    st.tuples(st.just("remove"), clients, topics),
    st.tuples(st.just("ephemeral"), topics),
    st.tuples(st.just("prune"), topics, st.integers(0, 4)),
    st.tuples(st.just("delete"), topics),
    st.tuples(st.just("log_fails"), seconds),
    st.tuples(st.just("layer_fails"), seconds),
    st.tuples(st.just("layer_hangs"), seconds),
    st.tuples(st.just("wait"), st.floats(0, 3, allow_nan=False)),
    st.tuples(st.just("wait"), st.floats(0, 0.1, allow_nan=False)),
)
noises = st.builds(
    Noise,
    st.integers(0, 2**32),
    drop=st.sampled_from([0.0, 0.3, 1.0]),
    repeat=st.sampled_from([0.0, 0.3]),
    delay=st.sampled_from([0.0, 0.5, 1.0]),
    longest=st.sampled_from([0.01, 0.5, 4.0]),
    fail=st.sampled_from([0.0, 0.0, 0.1]),
)


def start(client: Client, topic: str, kind: str) -> Position | None:
    if kind == "live":
        return None
    if kind == "stored":
        return client.stored.get(topic)
    return {
        "oldest": OLDEST,
        "start": START,
        "elsewhere": Position("foreign0", 1),
        "future": Position("epoch001", 10_000),
    }[kind]


async def play(world: World, crowd: list[Client], script: list[Any]) -> None:
    """Run the script, then let everything recover, and check that everybody has everything."""
    for number, client in enumerate(crowd):
        await client.come(dict.fromkeys(TOPICS[: 1 + number % 3]))
    for step in script:
        match step:
            case "publish", topic, count, here:
                world.begin(world.publish(topic, count, here))
            case "come", number, names, kind:
                client = crowd[number]
                after = {topic: start(client, topic, kind) for topic in names}
                await client.come(after)
            case "leave", number:
                await crowd[number].leave()
            case "add", number, topic, kind:
                client = crowd[number]
                reading = client.reader is not None and not client.reader.done()
                if reading and client.subscription and topic not in client.subscription.topics:
                    world.begin(client.add(topic, start(client, topic, kind)))
            case "remove", number, topic:
                crowd[number].remove(topic)
            case "prune", topic, keep:
                world.log.drop(topic, keep)
            case "delete", topic:
                world.log.delete(topic)
            case "wait", length:
                await asyncio.sleep(length)
            case name, *arguments:
                world.begin(getattr(world, name)(*arguments))
        for client in crowd:
            if client.reader is not None and client.reader.done():
                client.reader.result()
    await asyncio.gather(*world.background)
    world.log.noise.fail = 0.0
    await asyncio.sleep(5)
    # Who was thrown out by a failure comes back with what it stored, as clients do.
    for client in crowd:
        if client.reader is not None and client.reader.done():
            client.reader.result()
            await client.come(dict(client.stored))
    # Who has read an event that its process never heard of, of a topic that was deleted since,
    # is told with the topic's next event.
    for topic in TOPICS:
        await world.publish(topic, 1, here=False)
    # Two looks at the heads, with the delays of the log, a slow reading and a reset in between.
    await asyncio.sleep(20 + 20 * world.noise.longest)
    for client in crowd:
        # Slow readers get the time they need.
        for _ in range(30):
            if client.reader is None or all(
                client.stored[topic] == world.log.head(topic) or client.stored[topic] == OLDEST
                for topic in client.wanted
            ):
                break
            await asyncio.sleep(5)
        if client.reader is not None:
            assert not client.reader.done(), client.reader
            for topic in client.wanted:
                stored, head = client.stored[topic], world.log.head(topic)
                nothing_kept = stored == OLDEST and not world.log.events(topic)
                assert stored == head or nothing_kept, f"{client.name} is at {stored} of {head}"


async def put_away(world: World, crowd: list[Client]) -> None:
    """When the last reader has left, nothing remains."""
    for client in crowd:
        await client.leave()
    assert running_hubs() == []
    await asyncio.sleep(5 * world.noise.longest + 30)  # the layer may answer late
    ours = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() if task is not ours]
    assert left == []
    if not world.layer.hung:
        assert world.layer.groups == {}


def run(noise: Noise, script: list[Any], lanes: list[bool], slowness: float, slices: bool) -> None:
    log, layer = FaultyLog(noise), FakeLayer(noise)

    async def example() -> None:
        world = World(log, layer, noise)
        crowd = [Client(f"client {n}", world, lane, slowness) for n, lane in enumerate(lanes)]
        try:
            await play(world, crowd, script)
            note(f"{[(c.got, c.pushed, c.resets) for c in crowd]}")
            if any(client.resets for client in crowd):
                event("somebody was reset")
            if any(client.pushed for client in crowd):
                event("the fast lane was used")
            if any(client.synced for client in crowd):
                event("synced")
            if any(client.together for client in crowd):
                event("several events in one write")
            await put_away(world, crowd)
        finally:
            for task in world.background:
                task.cancel()

    with pytest.MonkeyPatch.context() as patch, stage(layer, log, **CONSTANTS):
        if slices:
            # Every delivery is followed by a turn of the loop.
            patch.setattr(fanout, "SLICE_READERS", 1)
            patch.setattr(fanout, "SLICE_SECONDS", -1.0)
        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(example())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """The code warns of each failure; a thousand scripts make too many to keep."""
    caplog.set_level("CRITICAL", "realtime")


quick = settings(
    max_examples=4 * settings.default.max_examples,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # "explain" takes minutes
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@quick
@pytest.mark.timeout(180)  # a failing example takes time to be made smaller
@given(
    noises,
    st.lists(steps, min_size=8, max_size=40),
    st.lists(st.sampled_from([True, True, False]), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.2, 0.9]),
    st.booleans(),
)
def test_each_event_once_in_order_or_a_reset(noise, script, lanes, slowness, slices):
    run(noise, script, lanes, slowness, slices)


async def reader(topic: str, got: list[Event | Reset], pauses: Noise) -> None:
    """Reads with pauses, and again and again comes back with its position."""
    position: Position | None = OLDEST
    while True:
        async with Subscription() as subscription:
            started = await subscription.add(topic, position)
            if not started.recovered:
                got.append(Reset(topic, started.position))
            position = started.position
            for _ in range(pauses.random.randrange(1, 6)):
                items = await subscription.read(0.2)
                got += items
                if items:
                    position = items[-1].position
                await pauses.wait()


def all_there(got: list[Event | Reset], epoch: str, count: int) -> bool:
    return bool(got) and got[-1].position == Position(epoch, count)


@pytest.mark.django_db(transaction=True)
async def test_the_database_log_makes_up_for_a_bad_layer(caplog):
    caplog.set_level("CRITICAL", "realtime")
    noise = Noise(7, drop=0.4, repeat=0.3, delay=0.5, longest=0.1)
    pauses = Noise(8, delay=0.4, longest=0.02)
    constants = {**CONSTANTS, "HEAD_CHECK_SECONDS": 0.1, "EVENT_LOG": DatabaseLog}
    names, count = ["a", "b"], 60
    got: dict[tuple[str, int], list[Event | Reset]] = {(t, n): [] for t in names for n in range(3)}

    async def publisher(topic: str, here: bool, log: Any) -> None:
        for number in range(count // 2):
            if here:
                await publish_now(topic, number)
            else:
                [event] = await log.aappend([NewEvent(topic, "message", str(number))])
                await layer.group_send(topic, from_elsewhere(event))
            if number == 10 and topic == "a" and here:
                layer.fail()
            if number == 20:
                layer.recover()

    with stage(FakeLayer(noise), DatabaseLog(), **constants) as (layer, log):
        async with asyncio.TaskGroup() as group:
            readers = [
                group.create_task(reader(topic, mine, pauses)) for (topic, _), mine in got.items()
            ]
            publishers = [
                asyncio.create_task(publisher(topic, here, log))
                for topic in names
                for here in (True, False)
            ]
            done = await asyncio.gather(*publishers, return_exceptions=True)
            assert all(d is None or isinstance(d, ConnectionError) for d in done), done
            heads = await log.heads(names)
            for (topic, number), mine in got.items():
                head = heads[topic]
                await eventually(
                    lambda mine=mine, head=head: all_there(mine, head.epoch, head.offset),
                    what=f"the end of {topic} for {number}",
                )
            for task in readers:
                task.cancel()
        for (topic, _), mine in got.items():
            assert [item.position for item in mine] == [
                Position(heads[topic].epoch, offset) for offset in range(1, heads[topic].offset + 1)
            ]
        await eventually(lambda: not running_hubs() and layer.groups == {})
