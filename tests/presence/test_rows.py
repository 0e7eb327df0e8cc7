"""`realtime.presence.rows`: what counts, by the database's clock."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.db.models.functions import Now
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from realtime.models import Presence, Process
from realtime.presence import rows
from realtime.presence.rows import Row
from realtime.processes import registry
from realtime.processes.registry import this_process

pytestmark = pytest.mark.django_db(transaction=True)

LEASE, GRACE = 100.0, 50.0


@pytest.fixture(autouse=True)
def _constants() -> Iterator[None]:
    constants = {"PROCESS_LEASE_SECONDS": LEASE, "PRESENCE_GRACE_SECONDS": GRACE}
    with override_settings(REALTIME=constants):
        yield


def process(name: str, age: float = 0.0) -> None:
    made = Now() - timedelta(seconds=age)
    Process.objects.bulk_create([Process(name=name, host="", started=made, beat=made)])


def row(process: str, key: str, connections: int, age: float = 0.0, topic: str = "a") -> None:
    changed = Now() - timedelta(seconds=age)
    Presence.objects.bulk_create(
        [
            Presence(
                topic=topic,
                process=process,
                key=key,
                connections=connections,
                info="{}",
                changed=changed,
            )
        ]
    )


def keys(topics: list[str]) -> list[tuple[str, str]]:
    return sorted((each.topic, each.key) for each in rows.read_now(topics))


def test_a_process_writes_its_own_rows_in_few_statements():
    process("other")
    row("other", "1", 1)
    mine = [Row("a", str(number), 2, "{}") for number in range(300)]
    with CaptureQueriesContext(connection) as captured:
        rows._write(mine, this_process())
    inserts = [query for query in captured if query["sql"].startswith("INSERT")]
    assert len(inserts) == 1 or connection.vendor == "sqlite", "which takes 999 values in one"
    rows._write([Row("a", "1", 0, "{}")], this_process())
    found = {each.key: each.connections for each in Presence.objects.filter(process="other")}
    assert found == {"1": 1}
    own = async_to_sync(rows.read_own)()
    assert len(own) == 299
    assert {each.connections for each in own} == {2}


def test_what_counts():
    process("alive")
    process("silent", LEASE + GRACE - 10)
    process("dead", LEASE + GRACE + 10)
    row("alive", "here", 1, age=10_000)
    row("alive", "left", 0, age=GRACE - 10)
    row("alive", "gone", 0, age=GRACE + 10)
    row("silent", "perhaps", 2)
    row("dead", "no", 1)
    row("unknown", "no", 1)
    row("unknown", "moved", 0)
    row("alive", "elsewhere", 1, topic="b")
    assert keys(["a"]) == [("a", "here"), ("a", "left"), ("a", "moved"), ("a", "perhaps")]
    assert keys(["a", "b", "c"])[-1] == ("b", "elsewhere")
    assert rows.is_key_here("elsewhere")
    assert not rows.is_key_here("no")
    ages = {each.key: each.age for each in rows.read_now(["a"])}
    assert GRACE - 10 <= ages["left"] < GRACE


def test_what_was_written_before_the_clock_was_set_back_is_of_the_past():
    async_to_sync(registry.beat)()
    process("dead", -3_600)
    row("dead", "gone", 1, age=-3_600)
    row("dead", "left", 0, age=-3_600)
    row("dead", "left just now", 0, age=-1)
    assert keys(["a"]) == [("a", "left just now")]
    assert async_to_sync(rows.poll)(None, ["a"]).alive == {this_process()}


def test_a_poll_finds_what_the_others_have_written_since():
    process("alive")
    process("silent", LEASE + 10)
    first = async_to_sync(rows.poll)(None, ["a"])
    assert (first.alive, first.rows) == (None, []), "this process has no row yet"
    async_to_sync(registry.beat)()
    row("alive", "new", 1)
    row("alive", "left", 0)
    row("alive", "old", 1, age=60)
    row("alive", "elsewhere", 1, topic="b")
    row(this_process(), "own", 1)
    poll = async_to_sync(rows.poll)(first.at, ["a"])
    assert poll.alive == {"alive", this_process()}
    assert sorted((each.key, each.connections) for each in poll.rows) == [("left", 0), ("new", 1)]
    assert first.at is not None
    assert poll.at is not None
    assert poll.at >= first.at


def test_all_have_left_a_process_that_ends_and_may_come_back():
    async_to_sync(registry.beat)()
    row(this_process(), "1", 3, age=10_000)
    async_to_sync(registry.leave)()
    assert not Process.objects.exists()
    (found,) = rows.read_now(["a"])
    assert (found.key, found.connections) == ("1", 0)


def test_rows_that_count_no_more_are_deleted():
    process("alive")
    long = GRACE + rows.KEPT.total_seconds() + 10
    row("alive", "here", 1, age=long)
    row("alive", "left", 0, age=long)
    row("alive", "left just now", 0)
    row("dead", "gone", 1, age=long)
    row("dead", "gone just now", 1)
    async_to_sync(rows.tidy)()
    assert sorted(Presence.objects.values_list("key", flat=True)) == [
        "gone just now",
        "here",
        "left just now",
    ]
