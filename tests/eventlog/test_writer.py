"""`realtime.eventlog.writer`: an event is stored once, whatever becomes of its COMMIT."""

import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from realtime import models
from realtime.eventlog import writer
from realtime.eventlog.base import NewEvent
from realtime.events.event import Event
from realtime.exceptions import OutcomeUnknown
from realtime.utils.threads import DATABASE

from .support import (
    after_first_call,
    append,
    append_together,
    failing_once,
    fill,
    forget,
    log,
    message,
    offsets,
)

pytestmark = pytest.mark.django_db(transaction=True)

LOST = OperationalError("server closed the connection unexpectedly")


def append_apart(*events: NewEvent) -> list[Event]:
    return [event for new in events for event in log.append([new])]


WAYS = pytest.mark.parametrize("way", [append_together, append_apart])


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("is_done", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("error", [LOST, InterfaceError("connection already closed")], ids=repr)
@WAYS
def test_an_event_whose_commit_was_not_answered_is_stored_once(way, error, is_done, count, caplog):
    with failing_once(BaseDatabaseWrapper, "_commit", error, is_done=is_done):
        events = way(*(message("a", number) for number in range(count)))
    assert [event.offset for event in events] == offsets("a") == list(range(1, count + 1))
    assert "COMMIT was not answered" in caplog.text


@pytest.mark.parametrize("is_done", [True, False], ids=["stored", "not stored"])
def test_the_first_topic_decides_for_all(is_done):
    fill("a", 2)
    with failing_once(BaseDatabaseWrapper, "_commit", LOST, is_done=is_done):
        events = append_together(message("b", 1), message("a", 2), message("b", 3))
    assert [event.offset for event in events] == [1, 3, 2]
    assert (offsets("a"), offsets("b")) == ([1, 2, 3], [1, 2])


@WAYS
def test_a_commit_that_was_refused_has_stored_nothing_and_is_not_looked_for(way, caplog):
    error = IntegrityError("a deferred constraint")
    fill("a", 1)
    fill("b", 1)
    with failing_once(BaseDatabaseWrapper, "_commit", error, is_done=False):
        if way is append_together:  # each by itself after the batch
            answers = way(message("a", 1), message("b", 2))
            assert [answer.offset for answer in answers] == [2, 2]
        else:
            with pytest.raises(IntegrityError):
                way(message("a", 1))
    assert "COMMIT was not answered" not in caplog.text


def test_a_commit_whose_completion_is_unknown_is_not_taken_for_refused():
    error = OperationalError("completion unknown")
    error.__cause__ = Exception()
    error.__cause__.sqlstate = "40003"
    with failing_once(BaseDatabaseWrapper, "_commit", error):
        (event,) = append_apart(message("a", 1))
    assert [event.offset] == offsets("a") == [1]


def sqlite_error(code: int) -> OperationalError:
    error = OperationalError("of SQLite")
    error.__cause__ = sqlite3.OperationalError("of SQLite")
    error.__cause__.sqlite_errorcode = code  # its low byte is the kind
    return error


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_TIMEOUT]
)
def test_a_commit_that_sqlite_refuses_has_stored_nothing_and_is_not_looked_for(code, caplog):
    with (
        failing_once(BaseDatabaseWrapper, "_commit", sqlite_error(code), is_done=False),
        pytest.raises(OperationalError, match="of SQLite"),
    ):
        writer.append([message("a", 1)])
    assert offsets("a") == []
    assert "COMMIT was not answered" not in caplog.text
    writer.append([message("a", 1)])  # the connection is of use
    assert offsets("a") == [1]


@pytest.mark.parametrize("is_done", [True, False], ids=["stored", "not stored"])
def test_an_io_error_of_sqlite_s_commit_does_not_tell(is_done):
    error = sqlite_error(sqlite3.SQLITE_IOERR_FSYNC)
    with failing_once(BaseDatabaseWrapper, "_commit", error, is_done=is_done):
        (event,) = append_apart(message("a", 1))
    assert [event.offset] == offsets("a") == [1]


def test_a_commit_that_waits_for_sqlite_s_readers_has_stored_nothing(tmp_path):
    # The real thing: what the codes above stand for is what Python says of a COMMIT.
    path = tmp_path / "a.sqlite3"
    with (
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as site,
        closing(sqlite3.connect(path, isolation_level=None)) as reader,
    ):
        site.execute("CREATE TABLE a (b)")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM a").fetchall()
        site.execute("BEGIN IMMEDIATE")
        site.execute("INSERT INTO a VALUES (1)")
        with pytest.raises(sqlite3.OperationalError) as caught:
            site.commit()
        assert caught.value.sqlite_errorcode & 0xFF in writer.SQLITE_REFUSALS
        assert site.in_transaction  # which Django rolls back
        site.rollback()
        reader.execute("COMMIT")
        assert reader.execute("SELECT * FROM a").fetchall() == []


def test_an_interface_error_while_the_outcome_is_sought_is_no_reason_to_append_again():
    with (
        failing_once(BaseDatabaseWrapper, "_commit", LOST),
        failing_once(writer, "_is_stored", InterfaceError("closed"), is_done=False),
    ):
        (event,) = append_apart(message("a", 1))
    assert [event.offset] == offsets("a") == [1]


def test_an_event_of_another_publisher_at_its_offset_is_not_taken_for_it():
    def overtake() -> None:  # after the lost one has been rolled back
        append("a", "message", '"other"')

    fill("a", 1)
    with (
        failing_once(BaseDatabaseWrapper, "_commit", LOST, is_done=False),
        after_first_call(BaseDatabaseWrapper, "close", overtake),
    ):
        (event,) = append_apart(message("a", 7))
    assert event.offset == 3
    assert list(models.Event.objects.order_by("offset").values_list("data", flat=True)) == [
        "1",
        '"other"',
        "7",
    ]


@pytest.mark.parametrize("change", ["pruned", "epoch"])
@WAYS
def test_where_the_rows_do_not_tell_the_outcome_is_unknown(way, change):
    def make() -> None:
        if change == "pruned":
            forget("a", 9)
        else:
            models.Topic.objects.update(epoch="another")

    with (
        failing_once(BaseDatabaseWrapper, "_commit", LOST),
        after_first_call(BaseDatabaseWrapper, "close", make),
    ):
        if way is append_together:
            (answer,) = way(message("a", 1))
            assert isinstance(answer, OutcomeUnknown)
        else:
            with pytest.raises(OutcomeUnknown):
                way(message("a", 1))
    assert offsets("a") == ([] if change == "pruned" else [1])


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no second writer")
def test_a_commit_that_is_still_under_way_is_waited_for_where_the_topic_is_new():
    threads = []

    def commit_later(self: BaseDatabaseWrapper) -> None:
        patched.stop()
        raw, self.connection = self.connection, None

        def finish() -> None:
            time.sleep(0.5)
            raw.commit()
            raw.close()

        threads.append(threading.Thread(target=finish))
        threads[0].start()
        raise LOST

    patched = patch.object(BaseDatabaseWrapper, "_commit", commit_later)
    patched.start()
    (event,) = append_apart(message("new", 1))
    threads[0].join()
    assert event.offset == 1
    assert offsets("new") == [1]


def test_a_database_that_stays_away_makes_the_outcome_unknown():
    with (
        override_settings(REALTIME={"APPEND_RESOLVE_SECONDS": 0.3}),
        failing_once(BaseDatabaseWrapper, "_commit", LOST),
        patch.object(writer, "_is_stored", side_effect=OperationalError("down")) as asked,
        pytest.raises(OutcomeUnknown, match="may have been stored"),
    ):
        append_apart(message("a", 1))
    assert asked.call_count > 1
    assert offsets("a") == [1]


def test_a_database_that_comes_back_is_asked_again():
    with (
        failing_once(BaseDatabaseWrapper, "_commit", LOST),
        failing_once(writer, "_is_stored", OperationalError("still starting")) as asked,
    ):
        (event,) = append_apart(message("a", 1))
    assert len(asked) == 2
    assert offsets("a") == [event.offset] == [1]


def test_a_connection_that_breaks_again_while_it_is_stored_anew_costs_nothing():
    fill("a", 1)
    executed = []

    def fail_once(execute, sql, params, many, context):
        if sql.startswith("UPDATE") and len(executed) < 2:  # the second try's is lost
            executed.append(sql)
            if len(executed) == 2:
                raise LOST
        return execute(sql, params, many, context)

    with (
        failing_once(BaseDatabaseWrapper, "_commit", LOST, is_done=False),
        connection.execute_wrapper(fail_once),
    ):
        (event,) = append_apart(message("a", 1))
    assert len(executed) == 2
    assert event.offset == 2
    assert offsets("a") == [1, 2]


def test_a_connection_dropped_before_the_append_is_replaced(caplog):
    with failing_once(writer, "insert", LOST):
        (event,) = append_apart(message("a", 1))
    assert event.offset == 1
    assert "COMMIT was not answered" not in caplog.text


def test_within_a_transaction_nothing_is_tried_again():
    with failing_once(writer, "insert", LOST) as inserts:
        with pytest.raises(OperationalError), transaction.atomic():
            append_apart(message("a", 1))
        assert len(inserts) == 1
    assert offsets("a") == []


def test_rows_carry_the_number_of_their_append():
    fill("a", 1)
    fill("b", 1)
    append_together(message("a", 11), message("b", 12))
    append("a", "message", "13")
    numbers = dict(models.Event.objects.values_list("data", "batch"))
    assert numbers["11"] == numbers["12"] != numbers["13"]
    assert all(0 <= number < 2**63 for number in numbers.values())


class CommitCutter:
    """Carries bytes to PostgreSQL, and cuts some connections once a COMMIT has gone through."""

    def __init__(self, path: str, should_cut: Callable[[], bool]) -> None:
        self._path, self._should_cut = path, should_cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                for pair in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._carry, args=(*pair, pair[0] is client), daemon=True
                    ).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_question: bool) -> None:
        peer = source if is_question else target
        with suppress(OSError), closing(source), closing(target):
            while data := source.recv(65_536):
                is_cut = is_question and b"COMMIT" in data and self._should_cut()
                if is_cut:  # no answer comes back, and the server gets it all the same
                    peer.shutdown(socket.SHUT_RDWR)
                target.sendall(data)
                if is_cut:
                    target.shutdown(socket.SHUT_WR)
                    return


@pytest.fixture
def cuts(transactional_db: None) -> Iterator[list[int]]:
    """Put a proxy before the database that cuts every third COMMIT; the COMMITs it has seen."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connection that could break")
    commits: list[int] = []

    def should_cut() -> bool:
        commits.append(len(commits))
        return len(commits) % 3 == 0

    settings = connections.settings["default"]
    original = {name: settings[name] for name in ("HOST", "PORT", "OPTIONS")}
    path = Path(original["HOST"], f".s.PGSQL.{original['PORT'] or 5432}")
    with closing(CommitCutter(str(path), should_cut)) as proxy:
        DATABASE.close()
        connection.close()
        settings.update(HOST="127.0.0.1", PORT=str(proxy.port), OPTIONS={})
        try:
            yield commits
        finally:
            DATABASE.close()
            connection.close()
            settings.update(original)


def test_no_cut_commit_stores_twice_or_loses(cuts, caplog):
    caplog.set_level(logging.WARNING, "realtime.eventlog")
    answers = [
        answer
        for round in range(12)
        for answer in append_together(*(message("a", 4 * round + n) for n in range(4)))
    ]
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert caplog.text.count("COMMIT was not answered") >= 4
    stored = models.Event.objects.order_by("offset").values_list("offset", "data")
    assert sorted((e.offset, e.data) for e in answers) == list(stored)
    assert sorted(int(data) for _, data in stored) == list(range(48))


def test_single_event_is_inserted_by_execute() -> None:
    """django-debug-toolbar's wrapper fails at executemany on SQLite."""
    many: list[bool] = []

    def note(execute: Callable[..., object], sql: str, params: object, is_many: bool, _: object):
        many.append(is_many)
        return execute(sql, params, is_many, _)

    append_apart(message("room.a", 1))
    with connection.execute_wrapper(note):
        append_apart(message("room.a", 1))
    assert many
    assert not any(many)
