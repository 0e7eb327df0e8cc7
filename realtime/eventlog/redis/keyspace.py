"""The names of the log's keys in Redis, and the partitions that topics are in.

A partition is one slot of a cluster: what is in it can be written by one script. Its tag is chosen
so that the partitions spread evenly over the slots, and with them over a cluster's nodes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from zlib import crc32

from ...utils.redis_slots import partition_tags

PREFIX: Final = "realtime:log"
KEPT_TAGS: Final = 10_000  # topics whose tag is not computed again
KEPT_KEYS: Final = 1_000  # and whose keys are not made again: half a kilobyte each


class Keyspace:
    """The keys of a log with this number of partitions."""

    def __init__(self, partitions: int) -> None:
        self.tags: Sequence[str] = partition_tags(partitions)
        self.tag = lru_cache(KEPT_TAGS)(self._tag)
        self.append_keys = lru_cache(KEPT_KEYS)(self._append_keys)

    def _tag(self, topic: str) -> str:
        return self.tags[crc32(topic.encode()) % len(self.tags)]

    def _append_keys(self, topic: str) -> tuple[str, str, str, str]:
        """Return the keys that an append to the topic writes, in the order of `append.lua`."""
        return self.meta(topic), self.stream(topic), self.topics(topic), self.changes(topic)

    def meta(self, topic: str) -> str:
        """Return the key of a topic's epoch and head."""
        return f"{PREFIX}:{{{self.tag(topic)}}}:meta:{topic}"

    def stream(self, topic: str) -> str:
        """Return the key of a topic's events."""
        return f"{PREFIX}:{{{self.tag(topic)}}}:stream:{topic}"

    def topics(self, topic: str) -> str:
        """Return the key of the list of topics that are in the same partition."""
        return self.list_of(self.tag(topic))

    def list_of(self, tag: str) -> str:
        """Return the key of a partition's topics, by the time of their oldest event."""
        return f"{PREFIX}:{{{tag}}}:topics"

    def changes(self, topic: str) -> str:
        """Return the key of the list of topics in the same partition that have changed."""
        return self.changes_of(self.tag(topic))

    def changes_of(self, tag: str) -> str:
        """Return the key of a partition's topics, by the time of their newest event."""
        return f"{PREFIX}:{{{tag}}}:changes"

    def key(self, topic: str, digest: str) -> str:
        """Return the key of a publisher's idempotency key."""
        return f"{PREFIX}:{{{self.tag(topic)}}}:key:{digest}:{topic}"

    def writer(self, topic: str, name: str) -> str:
        """Return the key of what a writer has appended last in the topic's partition."""
        return f"{PREFIX}:{{{self.tag(topic)}}}:writer:{name}"
