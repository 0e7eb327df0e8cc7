"""One schedule: readers, publishers and faults drawn from a seed, and what came of it."""

import asyncio
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from random import Random
from typing import Final

import httpx

from ..main_job import StreamSubscriber, Subscriber, WebSocketSubscriber
from ..support.servers import TOKENS
from .faults import Fault, faults_of
from .site import Site, broken_site

TOPICS: Final = 2
PUBLISHERS: Final = 4
FAULTS_EACH: Final = 3
WITHIN_SECONDS: Final = 1.0  # in which the faults of a schedule begin
PACE_SECONDS: Final = 0.01
LARGE_EVERY: Final = 10  # events of a publisher, one is so large
LARGE_BYTES: Final = 40_000  # that a page of the log has no room for two
RECOVERY_SECONDS: Final = 10.0  # after the last fault, for everything to work again
GIVE_UP_SECONDS: Final = 40.0  # after which what does not work is counted as hung
HEADERS: Final = {"Authorization": f"Bearer {TOKENS['alice']}"}


@dataclass(frozen=True)
class Options:
    """What all schedules of a command have in common."""

    bus: str = "channels"
    log: str = "database"
    names: Sequence[str] | None = None  # of the faults, instead of random ones
    pace: float = PACE_SECONDS  # between two events of a publisher
    before: str | None = None  # the commit of a release that the sites have at first
    is_verbose: bool = False


@dataclass
class Outcome:
    """What came of one schedule. All but the last four have to be empty."""

    seed: int
    faults: list[str]
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    acknowledged: int = 0
    unanswered: int = 0
    resets: int = 0
    recovery: float = 0.0  # seconds after the last fault

    @property
    def wrong(self) -> list[str]:
        """Return all that must not be."""
        found = self.lost + self.doubled + self.disordered + self.hung
        if self.recovery > RECOVERY_SECONDS:
            found.append(f"it took {self.recovery:.1f} s to recover")
        return [line if len(line) < LARGE_BYTES else f"{line[:60]}..." for line in found]

    def __str__(self) -> str:
        text = f"seed {self.seed} ({', '.join(self.faults)}): {self.acknowledged} acknowledged, "
        text += f"{self.unanswered} unanswered, {self.resets} resets, {self.recovery:.1f} s"
        return "\n  ".join([text, *self.wrong])


class Publisher:
    """Publishes numbered events, none of them twice, and remembers which were acknowledged."""

    def __init__(self, client: httpx.AsyncClient, url: str, name: str) -> None:
        self._client, self._url, self._name = client, url, name
        self._count = 0
        self.acknowledged: dict[str, tuple[str, str]] = {}  # topic and id by number
        self.unanswered = 0

    async def publish(self, topic: str) -> bool:
        """Publish one event; return whether it was acknowledged."""
        self._count += 1
        number = f"{self._name}.{self._count}"
        if not self._count % LARGE_EVERY:
            number = number.ljust(LARGE_BYTES, ".")
        try:
            url = f"{self._url}/topics/{topic}/events"
            answer = await self._client.post(url, json=number, headers=HEADERS)
            if answer.status_code != 201:
                raise httpx.HTTPError(answer.text)
            event_id = str(answer.json()["id"])
        except (httpx.HTTPError, ValueError):
            self.unanswered += 1
            return False
        self.acknowledged[number] = topic, event_id
        return True

    async def run(
        self, topics: Sequence[str], rng: Random, pace: float, stopped: asyncio.Event
    ) -> None:
        """Publish to these topics until `stopped`, every `pace` seconds or so."""
        while not stopped.is_set():
            await self.publish(rng.choice(topics))
            await asyncio.sleep(pace)


async def run_schedule(
    site: Site,
    faults: Mapping[str, Fault],
    seed: int,
    names: Sequence[str] | None = None,
    pace: float = PACE_SECONDS,
) -> Outcome:
    """Break the site as the seed says, or by the named faults; then compare with its log."""
    rng = Random(seed)
    drawn = list(names) if names else rng.sample(sorted(faults), FAULTS_EACH)
    outcome = Outcome(seed, drawn)
    topics = [f"room.{seed}.{number}" for number in range(TOPICS)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=30, trust_env=False) as client:
        StreamSubscriber.client = client
        subscribers: list[Subscriber] = [
            kind(site.server.url, topic, TOKENS["alice"])
            for topic in topics
            for kind in (WebSocketSubscriber, StreamSubscriber)
        ]
        readers = [asyncio.create_task(subscriber.run()) for subscriber in subscribers]
        while not all(subscriber.connections for subscriber in subscribers):
            await asyncio.sleep(0.01)
        publishers = [
            Publisher(client, site.server.url, f"{seed}.{number}") for number in range(PUBLISHERS)
        ]
        stopped = asyncio.Event()
        publishing = [
            asyncio.create_task(publisher.run(topics, Random(rng.random()), pace, stopped))
            for publisher in publishers
        ]
        try:
            await asyncio.gather(
                *(_fault(site, faults[name], Random(rng.random())) for name in drawn)
            )
            site.heal()
            healed = time.monotonic()
            try:
                async with asyncio.timeout(GIVE_UP_SECONDS):
                    for topic in topics:
                        await _until_published(publishers[0], topic)
                    stopped.set()
                    await asyncio.gather(*publishing)
                    await _until_read(site, subscribers)
            except TimeoutError:
                outcome.hung.append(f"after {GIVE_UP_SECONDS:.0f} s not all had been served")
            outcome.recovery = time.monotonic() - healed
        finally:
            for task in (*readers, *publishing):
                task.cancel()
            await asyncio.gather(*readers, *publishing, return_exceptions=True)
    for topic in topics:
        stored = await asyncio.to_thread(site.events, topic)
        forgotten = site.forgotten.get(topic, frozenset())
        compare(outcome, stored, topic, publishers, subscribers, forgotten)
    outcome.unanswered = sum(publisher.unanswered for publisher in publishers)
    return outcome


async def _fault(site: Site, fault: Fault, rng: Random) -> None:
    await asyncio.sleep(rng.uniform(0, WITHIN_SECONDS))
    await fault(site, rng)


async def _until_published(publisher: Publisher, topic: str) -> None:
    while not await publisher.publish(topic):
        await asyncio.sleep(0.05)


async def _until_read(site: Site, subscribers: Sequence[Subscriber]) -> None:
    topics = {subscriber.topic for subscriber in subscribers}
    while True:  # ask each time: what was not acknowledged may be stored late
        heads = {topic: (await asyncio.to_thread(site.events, topic))[-1][0] for topic in topics}
        if all(subscriber.position == heads[subscriber.topic] for subscriber in subscribers):
            break
        await asyncio.sleep(0.2)  # each look is a new connection to the database
    await asyncio.sleep(0.1)  # for what should not come any more


def compare(
    outcome: Outcome,
    log: list[tuple[str, str]],
    topic: str,
    publishers: Sequence[Publisher],
    subscribers: Sequence[Subscriber],
    forgotten: Set[str] = frozenset(),
) -> None:
    """Add to the outcome what was acknowledged or read and differs from the topic's log.

    Where the log was set back, its events have other ids than they were acknowledged with, and
    those that are `forgotten` may be missing.
    """
    stored = Counter(number for _, number in log)
    outcome.doubled += [f"{number} is stored twice" for number, n in stored.items() if n > 1]
    place = dict(log)
    for publisher in publishers:
        mine = {n: i for n, (where, i) in publisher.acknowledged.items() if where == topic}
        outcome.lost += [
            f"{number} was acknowledged as {event_id}, where there is {place.get(event_id)}"
            for number, event_id in mine.items()
            if place.get(event_id) != number
            and not (forgotten and (number in stored or number in forgotten))
        ]
        outcome.acknowledged += len(mine)
    ids = [event_id for event_id, _ in log]
    for subscriber in subscribers:
        if subscriber.topic != topic:
            continue
        outcome.resets += subscriber.resets
        name = f"{type(subscriber).__name__} of {topic}"
        got = subscriber.ids[subscriber.reset_at :]
        # Whoever was told `reset` knows that what came before is gone.
        wanted = ids[ids.index(got[0]) :] if subscriber.resets and got and got[0] in ids else ids
        if subscriber.resets and not got:
            wanted = []
        counts = Counter(got)
        outcome.lost += [f"{name} has not got {i}" for i in wanted if not counts[i]]
        outcome.lost += [f"{name} has got {i}, which is not stored" for i in counts if i not in ids]
        outcome.doubled += [f"{name} has got {i} {n} times" for i, n in counts.items() if n > 1]
        outcome.disordered += [
            f"{name} has got {b} after {a}" for a, b in pairwise(got) if _offset(a) > _offset(b)
        ]


def _offset(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


_ready: Barrier | None = None


def wait_at(ready: Barrier) -> None:
    """Have this process wait there for the others before its first schedule.

    And end its site when it is told to end: a supervisor would go on by itself.
    """
    global _ready
    _ready = ready
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def run_share(seeds: Sequence[int], options: Options) -> list[Outcome]:
    """Run these schedules one after the other on a site of their own; print what is wrong."""
    try:
        return asyncio.run(_run_share(seeds, options))
    except BaseException:
        if _ready is not None:
            _ready.abort()  # nobody waits for a site that could not start
        raise


async def _run_share(seeds: Sequence[int], options: Options) -> list[Outcome]:
    outcomes = []
    faults = faults_of(options.bus, options.log, has_two_releases=options.before is not None)
    async with broken_site(options.bus, options.log, options.before) as site:
        await asyncio.to_thread(site.events, "first")  # what it imports takes seconds
        if _ready is not None:
            await asyncio.to_thread(_ready.wait)
        for seed in seeds:
            begun = len(site.server.log)
            try:
                outcome = await run_schedule(site, faults, seed, options.names, options.pace)
            except Exception as error:  # the other schedules are reported all the same
                traceback.print_exc()
                outcome = Outcome(seed, list(options.names or ()), hung=[repr(error)])
            outcomes.append(outcome)
            if options.is_verbose or outcome.wrong:
                print(outcome, flush=True)
            if outcome.wrong:
                print(*site.server.log[begun:][-200:], sep="\n    | ", flush=True)
            if outcome.hung:
                break  # what comes next on this site would tell nothing new
    return outcomes
