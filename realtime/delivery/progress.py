"""Publish how far a job is."""

import asyncio
import logging
import time
from typing import Any, Final, Self

from django.db import router, transaction

from .. import models
from ..conf import settings
from ..eventlog import get_event_log
from ..events.payload import DEFAULT_TYPE
from ..events.topic import validate_topic
from .announce import announce
from .publish import make_event, publish, publish_now

logger = logging.getLogger("realtime.progress")

FAILED: Final = "The job failed."
CANCELLED: Final = "The job was cancelled."


class Progress:
    """A job's progress as events: `{"step": i, "of": n}`, then `done` or, if it raises, `error`.

        with Progress(f"user.{user.pk}.import.{job}", of=len(rows)) as progress:
            for row in rows:
                ...
                progress.update()

    In async code write `async with`, and `await progress.aupdate()`. At most one step in
    `PROGRESS_SECONDS` is published; the last one always. Inside a transaction the steps go out at
    once and are not logged, since the log is written when it commits: with `done`.
    """

    def __init__(self, topic: str, *, of: int | None = None) -> None:
        self.topic = validate_topic(topic)
        self.of = of
        self.step = 0
        self._published = float("-inf")

    def update(self, step: int | None = None, **more: Any) -> None:
        """Be at `step`, or one further; `more` is published as it is. Never fails the job."""
        if self._advance(step):
            data = self._data(**more)
            try:
                if _in_transaction():
                    announce([make_event(self.topic, data, DEFAULT_TYPE).to_event()])
                else:
                    publish(self.topic, data)
            except Exception:
                logger.warning("The progress on %s can't be published", self.topic, exc_info=True)

    async def aupdate(self, step: int | None = None, **more: Any) -> None:
        """Be at `step`, as `update`, in async code outside of a transaction."""
        if self._advance(step):
            try:
                await publish_now(self.topic, self._data(**more))
            except Exception:
                logger.warning("The progress on %s can't be published", self.topic, exc_info=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        type, data = self._end(kind)
        if kind is None or not _in_transaction():
            publish(self.topic, data, type=type)
        else:  # it rolls back, and would take the event with it
            announce([make_event(self.topic, data, type).to_event()])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        type, data = self._end(kind)
        await publish_now(self.topic, data, type=type)

    def _advance(self, step: int | None) -> bool:
        """Be at `step`, or one further; return whether it is to be published now."""
        self.step = self.step + 1 if step is None else step
        now = time.monotonic()
        if self.step != self.of and now - self._published < settings.PROGRESS_SECONDS:
            return False
        self._published = now
        return True

    def _data(self, **more: Any) -> dict[str, Any]:
        return {"step": self.step, "of": self.of, **more}

    def _end(self, kind: type[BaseException] | None) -> tuple[str, dict[str, Any]]:
        if kind is None:
            return "done", self._data()
        # Not the error's text: it may hold what readers of the topic must not see.
        is_cancelled = issubclass(kind, asyncio.CancelledError | KeyboardInterrupt | SystemExit)
        return "error", self._data(detail=CANCELLED if is_cancelled else FAILED)


def _in_transaction() -> bool:
    """Return whether what is published now is held back until a commit."""
    if not get_event_log().waits_for_commit:
        return False
    return bool(transaction.get_connection(router.db_for_write(models.Event)).in_atomic_block)
