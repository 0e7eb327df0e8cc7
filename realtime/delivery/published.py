"""What is counted when events are published."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

from ..exceptions import RealtimeError
from ..metrics.series import OTHER, Counter, Histogram

Via: TypeAlias = Literal["code", "http", "websocket"]

published_via: Final[ContextVar[Via]] = ContextVar("published_via", default="code")
"""How what this context publishes has come."""

PUBLISHED: Final = Counter(
    "realtime_events_published_total",
    "Events that were stored, or are ephemeral, and announced: by the site's own code, or sent by "
    "a client.",
    via=("code", "http", "websocket"),
)
REFUSED: Final = Counter(
    "realtime_events_refused_total",
    "Times that nothing was published, by the code of the error; those over a rate are in "
    "`realtime_rate_limited_total`.",
    reason=(
        *("bad_topic", "bad_message", "too_large", "bad_event", "bad_key", "key_reused"),
        *(
            "not_allowed",
            "too_many",
            "rate_limited",
            "several_partitions",
            "unknown",
            "unavailable",
            OTHER,
        ),
    ),
)
SECONDS: Final = Histogram(
    "realtime_publish_seconds",
    "How long it took to check and store what is published at once; in a transaction, without "
    "its commit.",
)


class Publishing:
    """Measure, in a with block, how long publishing takes, and count what is refused."""

    __slots__ = ("_began",)

    def __enter__(self) -> Self:
        self._began = perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            SECONDS.observe(perf_counter() - self._began)
        elif isinstance(error, Exception):
            REFUSED.inc(error.code if isinstance(error, RealtimeError) else OTHER)


@contextmanager
def publishing_via(via: Via) -> Iterator[None]:
    """Count what the block publishes by this way, and nothing that the context publishes later."""
    before = published_via.get()
    published_via.set(via)
    try:
        yield
    finally:
        published_via.set(before)  # `reset` would raise where another context ends the coroutine
