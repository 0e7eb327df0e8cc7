"""Retention of the log in Redis: by its clock, and by topic."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ...conf.topics import topic_settings
from .changed_topics import CHANGES, FORGET
from .client import Script
from .keyspace import PREFIX, Keyspace

EXPIRED: Final = Script("expired")
PRUNE: Final = Script("prune")
TOPICS_PER_CALL: Final = 500
EVENTS_PER_CALL: Final = 100  # that one script looks at: others wait meanwhile


class Pruning:
    """Drops what has expired, a few events at a time."""

    def __init__(self, space: Keyspace, ask: Callable[..., Awaitable[Any]]) -> None:
        self._space = space
        self._ask = ask

    async def claim(self, work: str, interval: float) -> bool:
        """Return whether no process has claimed this work for `interval` seconds."""
        milliseconds = math.ceil(interval * 1_000)
        return bool(await self._ask("SET", [f"{PREFIX}:{work}"], [1, "NX", "PX", milliseconds]))

    async def run(self) -> dict[str, int]:
        """Drop what has expired; return the number of events by topic."""
        pruned: dict[str, int] = {}
        for tag in self._space.tags:
            await self._ask(CHANGES, [self._space.changes_of(tag)], FORGET)
            for topic in await self._expired(tag):
                if dropped := await self._prune(topic):
                    pruned[topic] = dropped
        return pruned

    async def topics(self) -> list[str]:
        """Return all topics."""
        return [topic for tag in self._space.tags for topic in await self._in(tag)]

    async def _in(self, tag: str) -> list[str]:
        names = await self._ask("ZRANGE", [self._space.list_of(tag)], [0, -1])
        return [name.decode() for name in names]

    async def _expired(self, tag: str) -> list[str]:
        """Return the topics of a partition that have too many events, or too old ones."""
        found: list[str] = []
        names = await self._in(tag)
        for start in range(0, len(names), TOPICS_PER_CALL):
            page = names[start : start + TOPICS_PER_CALL]
            keys = [self._space.list_of(tag), *map(self._space.stream, page)]
            values = [value for topic in page for value in (topic, *_limits(topic))]
            found += [name.decode() for name in await self._ask(EXPIRED, keys, values)]
        return found

    async def _prune(self, topic: str) -> int:
        space, dropped, has_more = self._space, 0, True
        keys = [space.meta(topic), space.stream(topic), space.topics(topic)]
        while has_more:
            values = [topic, *_limits(topic), EVENTS_PER_CALL]
            count, has_more = await self._ask(PRUNE, keys, values)
            dropped += count
        return dropped


def _limits(topic: str) -> tuple[int | str, int | str]:
    """Return the most events of a topic, and their greatest age in milliseconds; "" for none."""
    own = topic_settings(topic)
    count, age = own.retention_events, own.retention_seconds
    return "" if count is None else count, "" if age is None else round(age * 1_000)
