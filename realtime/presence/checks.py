"""System checks of who is here."""

from typing import Any

from django.core.checks import CheckMessage, Error

from ..conf import settings
from ..conf.topics import is_presence_used


def check_presence(**kwargs: Any) -> list[CheckMessage]:
    """Report presence without the rows of processes, by which it counts."""
    if not is_presence_used() or settings.PROCESS_BEAT_SECONDS is not None:
        return []
    message = "TOPICS has 'PRESENCE', and PROCESS_BEAT_SECONDS is None: everybody would be gone."
    hint = "Leave PROCESS_BEAT_SECONDS at its default, or 'PRESENCE' out."
    return [Error(message, hint=hint, id="realtime.E021")]
