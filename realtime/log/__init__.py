"""The event log: the only copy of an event that counts."""

from functools import cache

from ..conf import settings
from .base import EventLog


@cache
def _make(log_class: type[EventLog]) -> EventLog:
    return log_class()


def get_log() -> EventLog:
    """The process's event log, of the class that `EVENT_LOG` names."""
    return _make(settings.EVENT_LOG)
