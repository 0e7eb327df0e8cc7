"""An append as its script wants it, and what the script answers."""

import json
from collections.abc import Sequence
from typing import Any

from ...conf import settings
from ...conf.topics import topic_settings
from ...events.event import Event
from ...events.position import Position, new_epoch
from ...exceptions import KeyReused
from ..base import NewEvent
from ..keys import digest_of_content, digest_of_key
from ..known_heads import known_heads
from .keyspace import Keyspace
from .pipeline import Value

WRITER_MS = 3_600_000  # that an append is known by its number; afterwards it might be made twice


class Append:
    """The events of several calls that one script stores, each call whole or not at all."""

    def __init__(
        self, space: Keyspace, writer: str, number: int, calls: Sequence[Sequence[NewEvent]]
    ) -> None:
        self.calls = calls
        self.topics = list(dict.fromkeys(event.topic for call in calls for event in call))
        # Of the moment before it is sent: what is stored has to be newer.
        known = known_heads.of(self.topics)
        self.known = [known.get(topic) for topic in self.topics]
        self.keys = [writer]
        for topic in self.topics:
            self.keys += space.append_keys(topic)
        self._keys: dict[str, int] = {}
        places = {topic: index for index, topic in enumerate(self.topics, 1)}
        values: list[Value] = []
        given_calls = []
        for call in calls:
            given_call = []
            for event in call:
                key, content = 0, ""
                if event.key is not None:
                    key, content = self._key(space, event), digest_of_content(event)
                given_call.append((places[event.topic], key))
                values += (event.type, event.data, event.meta or "", content)
            given_calls.append(given_call)
        given: dict[str, Any] = {
            "number": number,
            "epoch": new_epoch(),
            "trust_restart": settings.REDIS_LOG_TRUST_RESTART,
            "key_ms": round(settings.IDEMPOTENCY_SECONDS * 1_000),
            "writer_ms": WRITER_MS,
            "topics": self.topics,
            "max_events": [topic_settings(t).retention_events or False for t in self.topics],
            "known": [(each and [each.epoch, each.offset]) or False for each in self.known],
            "calls": given_calls,
        }
        self.values: list[Value] = [json.dumps(given), *values]
        # The topics whose epoch has ended, with what was known of them and where they stood.
        self.renewed: list[tuple[str, Position | None, int]] = []

    def answers(self, text: bytes) -> list[list[Event] | KeyReused]:
        """Return what each call is answered; of what the script has said."""
        said = json.loads(text)
        # Lua has one kind of table: an empty list comes as an object.
        self.renewed = [
            (self.topics[place - 1], self.known[place - 1] if has_lost else None, head)
            for place, has_lost, head in said["renewed"] or ()
        ]
        epochs = dict(zip(self.topics, said["epochs"] or (), strict=True))
        answers: list[list[Event] | KeyReused] = []
        for call, offsets in zip(self.calls, said["results"] or (), strict=True):
            if isinstance(offsets, int):
                answers.append(KeyReused(call[offsets - 1].key or ""))
                continue
            answers.append(
                [
                    event.to_event(epochs[event.topic], offset)
                    if offset > 0
                    else event.to_repeated(epochs[event.topic], -offset)
                    for event, offset in zip(call, offsets, strict=True)
                ]
            )
        return answers

    def _key(self, space: Keyspace, event: NewEvent) -> int:
        """Return the place of a publisher's key among the script's keys."""
        name = space.key(event.topic, digest_of_key(event))
        if name not in self._keys:
            self.keys.append(name)
            self._keys[name] = len(self.keys)
        return self._keys[name]
