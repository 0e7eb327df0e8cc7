"""How many answers may be under way: in this process, and for one user."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ..exceptions import TooManyRequests
from ..metrics.series import Gauge
from .conf import settings

FULL_SECONDS = 1.0  # that a user is believed to have too many answers in all processes
RETRY_SECONDS = 5  # what Retry-After says: an answer ends within seconds, most of the time


class Slots:
    """Counts the answers of this process, by user."""

    def __init__(self) -> None:
        self._by_user: Counter[Any] = Counter()
        self._full: dict[Any, float] = {}  # by user: until when the answers elsewhere are believed

    @property
    def taken(self) -> int:
        """Return how many answers are under way."""
        return self._by_user.total()

    def check(self, user: Any) -> None:
        """Raise `TooManyRequests` if `user` may not begin another answer here now."""
        if self.taken >= settings.LLM_PER_PROCESS:
            raise TooManyRequests(
                "This server has too many answers under way; try again soon.", RETRY_SECONDS
            )
        is_full = self._full.get(user.pk, 0.0) > time.monotonic()
        if is_full or self._by_user[user.pk] >= settings.LLM_PER_USER:
            raise too_many_of_one_user()

    def note_full(self, user: Any) -> None:
        """Take note that `user` has too many answers under way, elsewhere too.

        For `FULL_SECONDS`: who asks again and again does not have the model asked each time.
        """
        now = time.monotonic()
        self._full = {pk: until for pk, until in self._full.items() if until > now}
        self._full[user.pk] = now + FULL_SECONDS

    @contextmanager
    def take(self, user: Any) -> Iterator[None]:
        """Hold a slot for the length of a with block; raises as `check` does."""
        self.check(user)
        self._by_user[user.pk] += 1
        try:
            yield
        finally:
            self._by_user[user.pk] -= 1
            if not self._by_user[user.pk]:
                del self._by_user[user.pk]


def too_many_of_one_user() -> TooManyRequests:
    """Return the error for a user who has as many answers as are allowed."""
    return TooManyRequests(
        f"You have {settings.LLM_PER_USER} answers under way, which are the most; wait for one of "
        "them, or cancel it.",
        RETRY_SECONDS,
    )


slots = Slots()

RUNNING: Final = Gauge(
    "realtime_generations",
    "Answers of language models that are under way.",
    read=lambda: {"running": slots.taken},
    state=("running",),
)
