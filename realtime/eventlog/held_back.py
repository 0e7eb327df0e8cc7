"""Appends of a transaction to a log that has none: they wait for its commit.

A transaction that rolls back, as by a savepoint, takes along what was to be appended.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from django.db import transaction

from ..events.event import Event, PendingEvent
from ..exceptions import KeyReused, RealtimeError, SeveralPartitions
from ..utils.commit_group import CommitGroup
from . import transactional_outbox as outbox
from .base import NewEvent

logger = logging.getLogger("realtime.eventlog")

Batch: TypeAlias = Sequence[NewEvent]
Forget: TypeAlias = Callable[[Batch], object]
Store: TypeAlias = Callable[[Sequence[Batch]], Sequence[list[Event] | BaseException]]

STORED_LATER: Final = (
    "The transaction has committed, and what it published is in the outbox until it can be "
    "stored: %s (%s)"
)
NOT_STORED: Final = (
    "The transaction has committed, and what it published is not stored: %s (%s). Publish it "
    "again, or use the log in the database, whose events commit with the transaction."
)


def append_on_commit(
    batch: Batch, store: Store, alias: str, forget: Forget | None = None
) -> list[Event]:
    """Append the batch once the open transaction commits; return its events without their places.

    They have them once it has committed. `store` gets all batches of the transaction together.
    With `forget` they are in the outbox until then: it gets the events whose keys, of the outbox,
    nobody will ask for any more.
    """
    append = _HeldAppend(batch, store, forget)
    # robust: what fails here must not keep the site's own hooks from running.
    transaction.on_commit(append.send, using=alias, robust=True)
    return list(append.events)


def is_to_be_retried(error: BaseException) -> bool:
    """Return whether what is in the outbox stays there after an error."""
    return not isinstance(error, KeyReused | SeveralPartitions)  # these fail every time


def log_kept(failures: Sequence[tuple[BaseException, Batch]]) -> None:
    """Say what stays in the outbox, and why; nothing without failures."""
    if not failures:
        return
    errors = [error for error, _ in failures]
    unexpected = next(filter(None, map(_unexpected, errors)), None)
    log = logger.warning if unexpected is None else logger.error
    topics = _topics([event for _, batch in failures for event in batch])
    log(STORED_LATER, topics, unexpected or errors[0], exc_info=unexpected)


def log_loss(error: BaseException, batch: Batch) -> None:
    """Say what is not stored, and why."""
    logger.error(NOT_STORED, _topics(batch), error, exc_info=_unexpected(error))


class _HeldAppend(CommitGroup):
    """A batch that is appended after the commit, with the others of the transaction."""

    def __init__(self, batch: Batch, store: Store, forget: Forget | None) -> None:
        self._forget = forget
        self.entry: int | None = None
        self.batch = batch
        if forget is not None:
            self.entry, self.batch = outbox.put(batch)
        self.events = [PendingEvent(new.topic, new.type, new.data, meta=new.meta) for new in batch]
        self._store = store
        super().__init__()  # last: what can't be put into the outbox is not appended either

    def send(self) -> None:
        """Append, unless one that was called before has done so."""
        if not (appends := self.take()):
            return
        answers: Sequence[list[Event] | BaseException]
        try:
            answers = self._store([append.batch for append in appends])
        except Exception as error:  # no thread or memory to begin with
            answers = [error] * len(appends)
        done: dict[int, Batch] = {}
        kept: list[tuple[BaseException, Batch]] = []
        for append, answer in zip(appends, answers, strict=True):
            if not isinstance(answer, BaseException):
                for event, stored in zip(append.events, answer, strict=True):
                    event.place(stored)
            elif append.entry is not None and is_to_be_retried(answer):
                kept.append((answer, append.batch))
                continue
            else:
                log_loss(answer, append.batch)
            if append.entry is not None:
                done[append.entry] = append.batch
        log_kept(kept)
        if self._forget is not None and done:
            outbox.remove(done, self._forget)


def _unexpected(error: BaseException) -> BaseException | None:
    return None if isinstance(error, RealtimeError) else error


def _topics(batch: Batch) -> str:
    return ", ".join(sorted({event.topic for event in batch}))
