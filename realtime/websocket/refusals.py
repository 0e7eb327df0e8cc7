"""When a socket is closed of which one message after the other is refused."""

from collections import deque
from time import monotonic

from ..conf import settings
from ..exceptions import RateLimited, RealtimeError
from .messages import CLOSE_BAD_MESSAGE, CLOSE_TOO_MANY


class Refusals:
    """The refused messages of one socket: bad ones, and those that came too fast."""

    __slots__ = ("_bad", "_early", "_until")

    def __init__(self) -> None:
        self._bad = 0
        self._until = 0.0  # when what was refused for coming too fast may come again
        # When the last messages have come that were to come later.
        self._early: deque[float] = deque(maxlen=settings.HAMMERING_REFUSALS)

    def add(self, error: RealtimeError) -> tuple[int, str] | None:
        """Count a refusal; return the code and reason to close with, if this was the last one."""
        if isinstance(error, RateLimited):
            return self._add_early(error)
        self._bad += error.status < 500  # else ours
        if self._bad < settings.MAX_BAD_MESSAGES:
            return None
        is_too_many = error.close_code == CLOSE_TOO_MANY
        code = CLOSE_TOO_MANY if is_too_many else CLOSE_BAD_MESSAGE
        return code, f"{self._bad} messages were refused."

    def _add_early(self, error: RateLimited) -> tuple[int, str] | None:
        now = monotonic()
        if now < self._until:  # else it has waited as it was told, and counts as nothing
            self._early.append(now)
        self._until = now + error.retry_after
        is_often = len(self._early) == self._early.maxlen
        seconds = settings.HAMMERING_BACK_SECONDS
        if error.is_hammering or (is_often and now - self._early[0] <= settings.HAMMERING_SECONDS):
            return CLOSE_TOO_MANY, f"Too many were refused; retry after {seconds:g}"
        return None
