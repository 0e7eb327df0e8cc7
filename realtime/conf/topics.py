"""What holds for a topic: the first entry of `TOPICS` that matches it, then the site's settings."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from django.core.signals import setting_changed

from . import settings
from .rate import Rate
from .topic_patterns import TOPIC_KEYS

CACHED_TOPICS: Final = 10_000  # of the others the patterns are tried again


class TopicSettings(NamedTuple):
    """The settings of one topic, or of one pattern's topics."""

    retention_seconds: float | None
    retention_events: int | None
    is_state: bool
    read: str  # one of `PEOPLE`
    publish: str
    publish_rate: Rate | None
    has_presence: bool

    @classmethod
    def of(cls, own: Mapping[str, Any]) -> Self:
        """Return what an entry of `TOPICS` gives; what it has not is the site's, or the default."""
        return cls(
            own.get("RETENTION_SECONDS", settings.RETENTION_SECONDS),
            own.get("RETENTION_EVENTS", settings.RETENTION_EVENTS),
            *(
                setting.resolve(own.get(key, setting.default))
                for key, setting in TOPIC_KEYS.items()
            ),
        )


@lru_cache(maxsize=CACHED_TOPICS)
def topic_settings(topic: str) -> TopicSettings:
    """Return the settings of a topic; raise `RealtimeConfigurationError` where `TOPICS` is wrong.

    They are on the path of each subscription and publication.
    """
    patterns, others = _patterns()
    for matches, own in patterns:
        if matches(topic):
            return own
    return others


@lru_cache(maxsize=1)
def _patterns() -> tuple[list[tuple[Callable[[str], bool], TopicSettings]], TopicSettings]:
    """Return what to ask of a topic, in this order, with its settings then; and those of others."""
    patterns = [(pattern.matches, TopicSettings.of(pattern.own)) for pattern in settings.TOPICS]
    return patterns, TopicSettings.of({})


def each_settings() -> list[TopicSettings]:
    """Return the settings of the topics of each pattern, and those of the others."""
    patterns, others = _patterns()
    return [*(own for _matches, own in patterns), others]


def is_presence_used() -> bool:
    """Return whether presence is kept of any topic."""
    return any(pattern.own.get("PRESENCE", False) for pattern in settings.TOPICS)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "REALTIME":
        _patterns.cache_clear()
        topic_settings.cache_clear()


setting_changed.connect(_forget)
