"""Which topics of the log in Redis have new events, by the times of their newest."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ...events.position import Position
from ..base import Changes
from .client import Script
from .keyspace import Keyspace

CHANGES: Final = Script("changes")
KEEP_SECONDS: Final = (
    60  # for which a change is known; a process that asks later compares all topics
)
FORGET: Final = ("", 0, KEEP_SECONDS * 1_000_000)  # what is older, and return nothing

Ask = Callable[..., Awaitable[Any]]
Heads = Callable[[Sequence[str]], Awaitable[Mapping[str, Position]]]


class Asked(NamedTuple):
    """When a server was asked last, and when before that, by its clock in microseconds."""

    before: str
    last: str


Mark = Mapping[str, Asked]  # by partition, or of one server


class ChangedTopics:
    """One list for each partition: Redis keeps a topic in it for a minute after its last event."""

    def __init__(self, space: Keyspace, ask: Ask, heads: Heads) -> None:
        self._space = space
        self._ask = ask
        self._heads = heads

    async def since(self, mark: Mark | None, limit: int, *, is_cluster: bool) -> Changes:
        """Return what `EventLog.changes` does; one call, or of a cluster one for each partition.

        Each question asks from the time of the question before the last: if the clock was set back
        in between, events got times before that of the last one.
        """
        tags = self._space.tags
        parts = {tag: [tag] for tag in tags} if is_cluster else {"": tags}
        following: dict[str, Asked] = {}
        names: list[str] | None = []
        for part, its_tags in parts.items():
            keys = [self._space.changes_of(tag) for tag in its_tags]
            asked = (mark or {}).get(part, Asked("", ""))
            values = [asked.last, limit + 1, KEEP_SECONDS * 1_000_000, asked.before]
            time, found = await self._ask(CHANGES, keys, values)
            now = time.decode()
            following[part] = Asked(now if found is None else asked.last, now)
            if found is None:
                names = None
            elif names is not None:
                names += [name.decode() for name in found]
        if names is None or len(names) > limit:
            return Changes(None, following)
        return Changes(await self._heads(names) if names else {}, following)
