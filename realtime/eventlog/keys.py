"""What publishers' keys stand for, by topic: read and written while the topic's row is locked."""

import hashlib
from collections.abc import Collection, Sequence
from typing import Final

from django.db.models.functions import Now

from .. import models
from ..exceptions import KeyReused
from .base import NewEvent

KEYS_PER_QUERY: Final = 500  # SQLite limits the parameters of one statement


class Keys:
    """The keys of one append, and where in their topics the events are that first had them."""

    def __init__(self, alias: str, batch: Sequence[NewEvent], topics: Collection[int]) -> None:
        self._alias = alias
        self._new: list[models.IdempotencyKey] = []
        digests = [digest_of_key(event) for event in batch if event.key is not None]
        self._known = {
            (row.topic_id, row.digest): row
            for start in range(0, len(digests), KEYS_PER_QUERY)
            for row in models.IdempotencyKey.objects.using(alias).filter(
                topic__in=topics, digest__in=digests[start : start + KEYS_PER_QUERY]
            )
        }

    def claim(self, topic: int, event: NewEvent, offset: int) -> int:
        """Return the offset of what came with the event's key before, else `offset`.

        Raises `KeyReused` where that was another event.
        """
        if event.key is None:
            return offset
        key, content = digest_of_key(event), digest_of_content(event)
        row = self._known.get((topic, key))
        if row is None:
            row = models.IdempotencyKey(
                topic_id=topic, digest=key, content=content, offset=offset, created=Now()
            )
            self._known[topic, key] = row
            self._new.append(row)
        elif row.content != content:
            raise KeyReused(event.key)
        return row.offset

    def save(self) -> None:
        """Insert those that are new."""
        if self._new:
            rows = models.IdempotencyKey.objects.using(self._alias)
            rows.bulk_create(self._new, KEYS_PER_QUERY)


def digest_of_key(event: NewEvent) -> str:
    """Return what a publisher's key is known by within its topic."""
    return _digest(f"{event.publisher}\n{event.key}")  # a key has no line break


def digest_of_content(event: NewEvent) -> str:
    """Return what has to be the same where the key is."""
    return _digest(f"{event.type}\n{event.data}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
