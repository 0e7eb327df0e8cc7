"""The event log: the only copy of an event that counts."""

from collections.abc import Callable
from functools import lru_cache

from ..conf import settings
from .base import EventLog


@lru_cache(maxsize=4)
def _make(make: Callable[[], EventLog]) -> EventLog:
    return make()


def get_event_log() -> EventLog:
    """Return the process's event log, made by what `EVENT_LOG` names: a class or a function."""
    return _make(settings.EVENT_LOG)
