"""Append events together with those of other publishers, each of them once.

A connection that breaks may have carried the append or not. It is sent again with the same number:
Redis keeps the last number of each writer and the answer to it, so only one of the two is made,
whichever comes first and however late the other one. A number below the last is refused: an append
that its writer has given up is not made any more.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

from ...conf import settings
from ...events.event import Event
from ...exceptions import DatabaseUnavailable, OutcomeUnknown, SeveralPartitions
from ...utils.aio import PerLoop
from ...utils.batching import Batcher
from ..base import NewEvent
from ..writer import RETRY_SECONDS, WENT_BACK, note_stored
from .client import CallFailed, Client, NotAnswered, Script, unavailable
from .keyspace import Keyspace
from .request import Append

logger = logging.getLogger("realtime.eventlog")

APPEND: Final = Script("append")
AT_ONCE: Final = 2  # appends of one loop: while one is on its way, the next is made ready
READY: Final = "realtime.ready"  # in whose partition it is tried whether anything can be written
RENEWED: Final = (
    "A new epoch of %s begins, and its readers get a reset: Redis was restarted or replaced since "
    "its last event, and may have lost some. REDIS_LOG_TRUST_RESTART is for one that loses none."
)

Then: TypeAlias = Callable[[Sequence[Event]], object] | None
Call: TypeAlias = tuple[Sequence[NewEvent], Then]
Question: TypeAlias = None  # in the place of a call: whether an event could be stored


class _Writer:
    """Sends one append after the other, each with a number of its own."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.number = 0


class _Turn:
    """One append under way, and the one before it, which it must not overtake."""

    def __init__(self, before: "_Turn | None") -> None:
        self.before = before
        self.is_sent = False
        self.is_in_doubt = False
        self.ended = asyncio.get_running_loop().create_future()

    async def wait(self, *, is_in_order: bool) -> None:
        """Wait for the one before it, unless what is sent now arrives after it."""
        before = self.before
        if before is not None and (not is_in_order or not before.is_sent or before.is_in_doubt):
            await asyncio.shield(before.ended)

    def end(self) -> None:
        """Let the next one go on."""
        self.before = None
        self.ended.set_result(None)


class _Writers:
    """What the appends of one event loop share."""

    def __init__(self) -> None:
        self.free = [_Writer() for _ in range(AT_ONCE)]
        self.last: _Turn | None = None


class _Partition:
    """Group commit: publishers that come while appends are under way share the next one."""

    def __init__(self, space: Keyspace, clients: PerLoop[Client], topic: str) -> None:
        self._space = space
        self._clients = clients
        self._topic = topic  # one that is in it
        self._writers = PerLoop(_Writers)
        self.append_together = Batcher[Call | Question, Any](
            self._answer, at_once=AT_ONCE, unanswered=OutcomeUnknown
        )

    async def _answer(self, calls: Sequence[Call | Question]) -> Sequence[Any]:
        writers = self._writers.get()
        turn = writers.last = _Turn(writers.last)
        writer = writers.free.pop()
        writer.number += 1
        try:
            return await self._append(writer, turn, calls)
        finally:
            writers.free.append(writer)
            turn.end()

    async def _append(
        self, writer: _Writer, turn: _Turn, calls: Sequence[Call | Question]
    ) -> Sequence[Any]:
        """Store the events of calls; answer each."""
        batches = [() if call is None else call[0] for call in calls]
        key = self._space.writer(self._topic, writer.name)
        new = Append(self._space, key, writer.number, batches)
        try:
            answers = new.answers(await self._send(new, turn))
        except (DatabaseUnavailable, OutcomeUnknown) as error:
            return [error] * len(calls)
        for topic, known, head in new.renewed:
            if known is None:
                logger.warning(RENEWED, topic)
            else:
                logger.error(WENT_BACK, topic, known, head)
        stored = [
            (answer, call[1])
            for call, answer in zip(calls, answers, strict=True)
            if call is not None and not isinstance(answer, Exception)
        ]
        note_stored(event for events, _ in stored for event in events)
        for events, then in stored:
            _tell(events, then)
        return answers

    async def _send(self, new: Append, turn: _Turn) -> Any:
        """Return what Redis answers; raise where nothing was stored, or nobody can know.

        The latter after `APPEND_RESOLVE_SECONDS`.
        """
        client, deadline = self._clients.get(), 0.0
        while True:
            await turn.wait(is_in_order=client.is_open and not deadline)
            turn.is_sent = client.is_open  # it writes before anything else runs
            try:
                return await client.run(APPEND, new.keys, new.values)
            except CallFailed as error:
                if not deadline:
                    raise unavailable(error) from error
                failed: Exception = error
            except NotAnswered as error:
                turn.is_in_doubt = True
                if not deadline:
                    logger.warning("Redis did not answer an append (%s); sending it again", error)
                    deadline = time.monotonic() + settings.APPEND_RESOLVE_SECONDS
                failed = error
            if time.monotonic() >= deadline:
                raise OutcomeUnknown from failed
            await asyncio.sleep(RETRY_SECONDS)


class Appender:
    """Stores events; on a cluster those of each partition by themselves.

    An append in doubt, as that to a node which is down, holds up none to another partition.
    """

    def __init__(self, space: Keyspace, clients: PerLoop[Client]) -> None:
        self._space = space
        self._clients = clients
        self._partitions: dict[str, _Partition] = {}  # by tag; "" on a single server

    async def append(self, batch: Sequence[NewEvent], then: Then) -> list[Event]:
        """Store all events or none; `then` gets them once they are stored."""
        events: list[Event] = await self._partition_of(batch).append_together((batch, then))
        return events

    async def check_writable(self) -> None:
        """Raise what keeps an event from being stored."""
        await self._partition_of(()).append_together(None)

    @cached_property
    def _is_cluster(self) -> bool:
        return self._clients.get().is_cluster

    def _partition_of(self, batch: Sequence[NewEvent]) -> _Partition:
        """Return the one that all the events are in; raise `SeveralPartitions` if there is none."""
        tag = topic = ""
        if self._is_cluster:
            topic = batch[0].topic if batch else READY
            tag = self._space.tag(topic)
            if any(self._space.tag(event.topic) != tag for event in batch):
                raise SeveralPartitions(event.topic for event in batch)
        partition = self._partitions.get(tag)
        if partition is None:  # perhaps in two threads at once
            new = _Partition(self._space, self._clients, topic)
            partition = self._partitions.setdefault(tag, new)
        return partition


def _tell(events: Sequence[Event], then: Then) -> None:
    try:
        if then is not None:
            then(events)
    except Exception:
        # The publisher must not believe that its events were not stored.
        logger.exception("%r are stored, and what was to follow failed", events)
