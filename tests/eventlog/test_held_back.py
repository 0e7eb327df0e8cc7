"""`realtime.eventlog.held_back`: what is published in a transaction waits for its commit."""

import pytest
from django.db import DEFAULT_DB_ALIAS, transaction

from realtime.eventlog.base import NewEvent
from realtime.eventlog.held_back import append_on_commit
from realtime.exceptions import DatabaseUnavailable

pytestmark = pytest.mark.django_db(transaction=True)


class Stored:
    """What comes of a transaction."""

    def __init__(self, *errors: Exception | None) -> None:
        self.calls: list[list[list[str]]] = []
        self.errors = errors

    def __call__(self, batches):
        self.calls.append([[event.data for event in batch] for batch in batches])
        errors = [*self.errors, *[None] * len(batches)]
        return [
            error or [new.to_event("epoch", n) for n, new in enumerate(batch, 1)]
            for batch, error in zip(batches, errors, strict=False)
        ]

    def append(self, *data: str):
        new = [NewEvent("a", "message", each) for each in data]
        return append_on_commit(new, self, DEFAULT_DB_ALIAS)


def test_all_of_a_transaction_are_stored_together_and_in_order():
    stored = Stored()
    with transaction.atomic():
        events = stored.append("1", "2")
        with transaction.atomic():
            events += stored.append("3")
        assert all(event.is_pending and event.id is None for event in events)
        assert stored.calls == []
    assert stored.calls == [[["1", "2"], ["3"]]]
    assert [(event.is_pending, event.offset) for event in events] == [
        (False, 1),
        (False, 2),
        (False, 1),
    ]


def test_what_is_rolled_back_is_not_stored():
    stored = Stored()
    with transaction.atomic():
        with transaction.atomic():
            stored.append("1")
            transaction.set_rollback(True)
        stored.append("2")
    assert stored.calls == [[["2"]]]
    with transaction.atomic():
        [event] = stored.append("3")
        transaction.set_rollback(True)
    assert event.is_pending
    assert len(stored.calls) == 1
    with transaction.atomic():
        stored.append("4")
    assert stored.calls[1:] == [[["4"]]]


def test_what_fails_is_said_and_keeps_neither_the_others_nor_the_sites_hooks(caplog):
    stored, called = Stored(DatabaseUnavailable(), ValueError("unexpected")), []
    with transaction.atomic():
        first, second, third = (stored.append(n)[0] for n in "123")
        transaction.on_commit(lambda: called.append(1))
    assert [event.is_pending for event in (first, second, third)] == [True, True, False]
    assert called == [1]
    assert caplog.text.count("what it published is not stored: a") == 2
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_what_can_not_even_be_begun_is_said_with_its_topics(caplog):
    def store(batches):
        raise RuntimeError("can't start new thread")

    with transaction.atomic():
        for topic in "ab":
            append_on_commit([NewEvent(topic, "message", 1)], store, DEFAULT_DB_ALIAS)
    assert [record.getMessage().partition(". ")[0] for record in caplog.records] == [
        f"The transaction has committed, and what it published is not stored: {topic} "
        "(can't start new thread)"
        for topic in "ab"
    ]
