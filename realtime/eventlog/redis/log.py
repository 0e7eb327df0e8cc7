"""The event log on Redis Streams, or Valkey's."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from django.core.checks import CheckMessage
from django.db import connections, transaction

from ...conf import settings
from ...events.event import Event
from ...events.position import MAX_OFFSET, OLDEST, START, UNBORN, Position, new_epoch
from ...exceptions import HistoryGone
from ...utils.aio import PerLoop
from ...utils.background_loop import background_loop
from ...utils.threads import DATABASE
from .. import transactional_outbox as outbox
from ..base import Changes, EventLog, NewEvent, Page
from ..held_back import Batch, append_on_commit, is_to_be_retried, log_kept, log_loss
from ..keys import digest_of_key
from ..known_heads import is_behind, known_heads
from ..writer import WENT_BACK, alias, note_stored
from .appender import Appender
from .changed_topics import ChangedTopics
from .client import Client, Script
from .keyspace import Keyspace
from .pipeline import Value
from .policy import check_server, require_no_eviction
from .pruning import Pruning

logger = logging.getLogger("realtime.eventlog")

READ: Final = Script("read")
HEADS: Final = Script("heads")
RENEW: Final = Script("renew")
NAMES_PER_CALL: Final = 500  # topics that one script is asked about: others wait meanwhile


class RedisLog(EventLog):
    """A stream, an epoch and a head for each topic.

    It has no part in the site's transactions: what is published in one is appended after its
    commit.
    """

    supports_transactions = False

    def __init__(self) -> None:
        url, seconds = settings.REDIS_LOG_URL, settings.REDIS_LOG_ANSWER_SECONDS
        self._space = Keyspace(settings.REDIS_LOG_PARTITIONS)
        self._clients = PerLoop(lambda: Client(url, seconds), Client.aclose)
        self._appender = Appender(self._space, self._clients)
        self._pruning = Pruning(self._space, self._ask)
        self._changed = ChangedTopics(self._space, self._ask, self.heads)

    def append(self, batch: Sequence[NewEvent]) -> list[Event]:
        if not batch:
            return []
        if connections[alias()].in_atomic_block:
            forget = self._forget_keys if settings.REDIS_LOG_OUTBOX else None
            return append_on_commit(batch, self._append_all, alias(), forget)
        return background_loop.run(self.aappend, batch)

    def on_commit(self, callback: Callable[[], object]) -> None:
        # robust: a failing announcement must not keep the site's own hooks from running.
        transaction.on_commit(callback, using=alias(), robust=True)

    async def aappend(
        self, batch: Sequence[NewEvent], then: Callable[[Sequence[Event]], object] | None = None
    ) -> list[Event]:
        return await self._appender.append(batch, then) if batch else []

    async def check_writable(self) -> None:
        await self._appender.check_writable()
        await require_no_eviction(self._ask)

    async def heads(self, topics: Sequence[str]) -> Mapping[str, Position]:
        heads: dict[str, Position] = {}
        for names in self._by_place(topics):
            for start in range(0, len(names), NAMES_PER_CALL):
                heads |= await self._heads(names[start : start + NAMES_PER_CALL])
        return heads

    def parts_of(self, topics: Sequence[str]) -> list[Sequence[str]]:
        client = self._clients.get()
        parts: dict[str | None, list[str]] = {}
        for names in self._by_place(topics):
            parts.setdefault(client.node_of(self._space.meta(names[0])), []).extend(names)
        return [*parts.values()]

    async def changes(self, mark: Any, limit: int) -> Changes:
        is_cluster = self._clients.get().is_cluster
        return await self._changed.since(mark, limit, is_cluster=is_cluster)

    async def read(self, topic: str, after: Position, limit: int) -> Page:
        keys = [self._space.meta(topic), self._space.stream(topic)]
        first = "-" if after == OLDEST else f"{min(after.offset + 1, MAX_OFFSET)}-0"
        epoch, offset, found = await self._ask(READ, keys, [first, limit, settings.LOG_PAGE_BYTES])
        head = Position(epoch.decode(), int(offset)) if epoch else START
        events = _consecutive([_event(topic, head.epoch, *entry) for entry in found])
        if after == OLDEST:
            return Page(events, events[-1].position if events else head)
        if after.epoch in (UNBORN, head.epoch):
            if events and events[0].offset == after.offset + 1:
                return Page(events, events[-1].position)
            if after == head:
                return Page([], after)
        raise HistoryGone(f"The log of {topic!r} no longer holds what followed {after}.")

    def prune(self) -> Mapping[str, int]:
        return background_loop.run(self._pruning.run)

    def prune_in_turn(self, interval: float) -> Mapping[str, int]:
        claim = self._pruning.claim
        return self.prune() if background_loop.run(claim, "prune", interval) else {}

    def start_epoch(self, topics: Sequence[str] | None = None) -> int:
        return background_loop.run(self._start_epoch, topics)

    def note_stored(self, events: Iterable[Event]) -> None:
        note_stored(events)

    async def end_epoch(self, event: Event) -> None:
        await self._end_epoch(event.topic, event.position, event)

    async def move_outbox(self) -> AsyncIterator[list[Event]]:
        # In turn, so that what is there is stored in its order, unless a turn takes longer.
        if not settings.REDIS_LOG_OUTBOX or not await self._pruning.claim(
            "outbox", settings.HEAD_CHECK_SECONDS
        ):
            return
        until = time.monotonic() + settings.HEAD_CHECK_SECONDS / 2  # the caller has more to do
        waiting: set[str] = set()
        mover, last = outbox.new_mover(), 0
        while entries := await DATABASE.run(outbox.take_over, mover, last):
            last = max(entries)
            moved = await self._move(mover, entries, waiting)
            yield [event for event in moved if not event.is_repeated]
            if time.monotonic() >= until:
                break

    def check(self) -> list[CheckMessage]:
        """Return what the log lacks in the settings, and what in Redis' own would lose events."""
        return check_server(self._ask)

    async def _move(
        self, mover: str, entries: Mapping[int, Batch], waiting: set[str]
    ) -> list[Event]:
        """Store what was left behind, and return it.

        `waiting` gets the topics of what can't be stored now. What follows in them waits too.
        """
        tried: dict[int, Batch] = {}
        kept: list[int] = []
        for pk, batch in entries.items():
            if waiting.isdisjoint(_topics(batch)):
                tried[pk] = batch
            else:
                waiting |= _topics(batch)
                kept.append(pk)
        calls = [self.aappend(batch) for batch in tried.values()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        moved: list[Event] = []
        failures: list[tuple[BaseException, Batch]] = []
        for (pk, batch), answer in zip(tried.items(), answers, strict=True):
            if not isinstance(answer, BaseException):
                moved += answer
            elif is_to_be_retried(answer):
                waiting |= _topics(batch)
                kept.append(pk)
                failures.append((answer, batch))
            else:
                log_loss(answer, batch)
        log_kept(failures)
        done = [pk for pk in entries if pk not in kept]
        await DATABASE.run(outbox.put_back, mover, done, kept)
        return moved

    def _append_all(
        self, batches: Sequence[Sequence[NewEvent]]
    ) -> list[list[Event] | BaseException]:
        async def append() -> list[list[Event] | BaseException]:
            calls = [self.aappend(batch) for batch in batches]
            return await asyncio.gather(*calls, return_exceptions=True)

        return background_loop.run(append)

    def _forget_keys(self, events: Sequence[NewEvent]) -> None:
        async def forget() -> None:
            keys = [self._space.key(event.topic, digest_of_key(event)) for event in events]
            calls = [self._ask("UNLINK", [key]) for key in keys]
            await asyncio.gather(*calls, return_exceptions=True)  # else they are gone in time

        background_loop.run(forget)

    async def _ask(
        self, what: Script | str, keys: Sequence[str] = (), values: Sequence[Value] = ()
    ) -> Any:
        return await self._clients.get().ask(what, keys, values)

    def _by_place(self, topics: Sequence[str]) -> list[Sequence[str]]:
        """Return the topics by what one script may read."""
        if not self._clients.get().is_cluster:
            return [topics]
        tag = self._space.tag
        return [list(names) for _, names in groupby(sorted(topics, key=tag), tag)]

    async def _heads(self, names: Sequence[str]) -> dict[str, Position]:
        known = known_heads.of(names)  # before it is asked: the answer has to reach as far
        found = await self._heads_now(names)
        lost = [name for name in known if is_behind(found.get(name, START), known[name])]
        for name in lost:
            await self._end_epoch(name, known[name])
        if lost:
            found |= await self._heads_now(lost)
        known_heads.note(found.items())
        return found

    async def _heads_now(self, names: Sequence[str]) -> dict[str, Position]:
        metas = await self._ask(HEADS, [self._space.meta(name) for name in names])
        return {
            name: Position(epoch.decode(), int(head))
            for name, (epoch, head) in zip(names, metas, strict=True)
            if epoch and int(head)
        }

    async def _end_epoch(self, topic: str, known: Position, event: Event | None = None) -> None:
        values: list[Value] = [new_epoch(), known.epoch, known.offset]
        if event is not None:
            values += [event.type, event.data, event.meta or ""]
        head = await self._renew(topic, values)
        if head is not None:
            logger.error(WENT_BACK, topic, known, int(head))

    async def _start_epoch(self, topics: Sequence[str] | None) -> int:
        names = await self._pruning.topics() if topics is None else topics
        return sum([await self._renew(name, [new_epoch()]) is not None for name in names])

    async def _renew(self, topic: str, values: Sequence[Value]) -> Any:
        return await self._ask(RENEW, [self._space.meta(topic), self._space.stream(topic)], values)


def _event(topic: str, epoch: str, id: bytes, fields: Sequence[bytes]) -> Event:
    """Return an entry of a stream; its fields are type, data, time and perhaps meta."""
    values = [value.decode() for value in fields[1::2]]
    meta = values[3] if len(values) > 3 else None
    return Event(topic, values[0], values[1], epoch, int(id.partition(b"-")[0]), meta)


def _topics(batch: Batch) -> set[str]:
    return {event.topic for event in batch}


def _consecutive(events: list[Event]) -> list[Event]:
    """Return the events up to the first that is missing: what follows is no longer of use."""
    for index, event in enumerate(events):
        if event.offset != events[0].offset + index:
            return events[:index]
    return events
