"""Several processes, one table, and what their readers are told; the clock is not real."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from realtime.presence.keeper import Keeper, Watch

from ..support.clock import InstantLoop
from .table import Table, View

TOPIC = "room.a"
LEASE, GRACE, TURN = 10.0, 15.0, 1.0
SETTLED = 100.0  # the lease, the grace and a turn of all rows, twice
CONSTANTS: dict[str, Any] = {
    "PROCESS_LEASE_SECONDS": LEASE,
    "PRESENCE_GRACE_SECONDS": GRACE,
    "PRESENCE_SECONDS": TURN,
}


@pytest.fixture(autouse=True)
def _constants() -> Iterator[None]:
    with override_settings(REALTIME=CONSTANTS):
        yield


def run(main: Any) -> None:
    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main)


def info(user: str) -> str:
    return json.dumps({"id": user})


class Reader:
    """Is told who is there, and keeps account of it."""

    def __init__(self, process: "Process", topic: str = TOPIC) -> None:
        self.frames: list[dict[str, Any]] = []
        self.users: set[str] = set()
        self.left: list[str] = []
        self.connections = 0
        self.watch: Watch | None = None
        self.watch = process.keeper.watch(topic, self.wake)
        self.wake()

    def wake(self) -> None:
        text = self.watch.take() if self.watch is not None else None
        if text is None:
            return
        frame = json.loads(text)
        self.frames.append(frame)
        self.connections = frame["connections"]
        if "users" in frame:
            self.users = {each["id"] for each in frame["users"]}
        joined = {each["id"] for each in frame.get("joined", ())}
        left = {each["id"] for each in frame.get("left", ())}
        assert not joined & self.users, "told twice"
        assert left <= self.users, "was not there"
        self.users = self.users - left | joined
        self.left += left


class Process:
    def __init__(self, table: Table, name: str) -> None:
        self.table, self.name = table, name
        self.keeper = Keeper(View(table, name), name)
        self.readers: list[Reader] = []
        table.alive.add(name)

    def enter(self, user: str, topic: str = TOPIC) -> None:
        self.keeper.enter(topic, user, info(user) if user else "")

    def leave(self, user: str, topic: str = TOPIC) -> None:
        self.keeper.leave(topic, user)

    def read(self) -> Reader:
        self.readers.append(Reader(self))
        return self.readers[-1]

    def kill(self) -> None:
        self.table.kill(self.name)
        if self.keeper._task is not None:
            self.keeper._task.cancel()

    def stop(self) -> None:
        """As at SIGTERM: all leave, the row goes; of what follows nothing can be relied on."""
        for topic, members in list(self.keeper.here.items()):
            for key, member in list(members.items()):
                for _ in range(member.connections):
                    self.keeper.leave(topic, key)
        self.table.leave(self.name)
        if self.keeper._task is not None:
            self.keeper._task.cancel()


def test_the_first_list_and_then_what_changes() -> None:
    async def main() -> None:
        table = Table()
        one, two = Process(table, "one"), Process(table, "two")
        one.enter("a")
        two.enter("b")
        await asyncio.sleep(2)
        reader, other = one.read(), two.read()
        await asyncio.sleep(0.2)
        assert [reader.users, other.users] == [{"a", "b"}] * 2, "before the next turn"
        two.enter("c")
        one.enter("c")
        await asyncio.sleep(3)
        assert [len(each.frames) for each in (reader, other)] == [2, 2]
        assert other.frames[1]["joined"][0]["id"] == "c"
        two.leave("c")
        await asyncio.sleep(GRACE + 5)
        assert reader.users == {"a", "b", "c"}, "there by another process"
        one.leave("c")
        await asyncio.sleep(GRACE + 3)
        assert [each.left for each in (reader, other)] == [["c"]] * 2
        assert [each.connections for each in (reader, other)] == [2, 2]

    run(main())


def test_two_thousand_in_a_second_are_one_frame_and_few_statements() -> None:
    """Above PRESENCE_MEMBERS the number alone, at most every PRESENCE_COUNT_SECONDS."""

    async def main() -> None:
        table = Table()
        one, two = Process(table, "one"), Process(table, "two")
        readers = [one.read(), two.read()]
        await asyncio.sleep(2)
        table.calls.clear()
        for number in range(2_000):
            (one, two)[number % 2].enter(str(number))
            await asyncio.sleep(0.0005)
        await asyncio.sleep(3)
        assert table.calls.count("write") <= 2 * 3
        assert len(table.calls) <= 2 * 3 * 5
        for reader in readers:
            assert len(reader.frames) <= 1 + 4
            assert reader.frames[-1].keys() == {"topic", "connections"}
        await asyncio.sleep(10)
        for reader in readers:
            assert len(reader.frames) <= 1 + 5
            assert reader.connections == 2_000

    run(main())


def test_a_killed_process_is_missed_after_lease_and_grace_and_each_is_told_once() -> None:
    async def main() -> None:
        table = Table()
        one, two = Process(table, "one"), Process(table, "two")
        for number in range(50):
            for _tab in range(3):
                (one if number < 30 else two).enter(str(number))
        two.enter("0")  # is in both
        reader = two.read()
        await asyncio.sleep(5)
        assert len(reader.users) == 50
        one.kill()
        await asyncio.sleep(LEASE + GRACE - 2)
        assert reader.left == []
        await asyncio.sleep(2 + 4 * TURN)
        assert sorted(reader.left) == sorted(map(str, range(1, 30)))
        fresh = two.read()
        await asyncio.sleep(1)
        assert fresh.users == reader.users == {"0", *map(str, range(30, 50))}

    run(main())


def test_those_of_a_process_that_was_silent_are_there_again_with_its_next_beat() -> None:
    async def main() -> None:
        table = Table()
        one, two = Process(table, "one"), Process(table, "two")
        one.enter("a")
        reader = two.read()
        await asyncio.sleep(3)
        table.kill("one")
        await asyncio.sleep(LEASE + GRACE + 4 * TURN)
        assert reader.left == ["a"]
        table.alive.add("one")
        await asyncio.sleep(3 * TURN)
        assert reader.users == {"a"}

    run(main())


def test_a_rolling_restart_is_not_told() -> None:
    async def main() -> None:
        table = Table()
        old, other = Process(table, "old"), Process(table, "other")
        for number in range(200):
            old.enter(str(number % 90))
        old.enter("")
        watching = other.read()
        await asyncio.sleep(3)
        new = Process(table, "new")
        old.stop()
        await asyncio.sleep(1)
        first = new.read()
        for number in range(200):
            new.enter(str(number % 90))
            await asyncio.sleep(0.02)
        new.enter("")
        await asyncio.sleep(SETTLED)
        assert len(watching.frames) == 1
        changes = [(frame["joined"], frame["left"]) for frame in first.frames[1:]]
        assert changes == [([], [])], "the number of those without a user is back"
        assert watching.users == first.users == {str(number) for number in range(90)}

    run(main())


def test_those_without_a_user_are_counted_when_they_stay_away() -> None:
    async def main() -> None:
        process = Process(Table(), "one")
        reader = process.read()
        for _ in range(3):
            process.enter("")
        await asyncio.sleep(2)
        assert (reader.connections, reader.users) == (3, set())
        process.leave("")
        process.leave("")
        await asyncio.sleep(GRACE - 2)
        process.enter("")
        await asyncio.sleep(1)
        assert reader.connections == 3, "one is missing, and may come back"
        await asyncio.sleep(3)
        assert reader.connections == 2

    run(main())


def test_while_the_database_is_away_those_of_this_process_are_told(caplog: Any) -> None:
    async def main() -> None:
        table = Table()
        one, two = Process(table, "one"), Process(table, "two")
        readers = [one.read(), two.read()]
        await asyncio.sleep(2)
        table.is_failing = True
        one.enter("a")
        await asyncio.sleep(20)  # before all rows are compared, which would write it too
        assert [reader.users for reader in readers] == [{"a"}, set()]
        table.is_failing = False
        await asyncio.sleep(3)
        assert [reader.users for reader in readers] == [{"a"}, {"a"}]

    run(main())
    assert [each.levelname for each in caplog.records if each.name == "realtime.presence"] == (
        ["WARNING"] * 2
    ), "once in each process"


def test_while_the_database_does_not_answer_those_of_this_process_are_told() -> None:
    async def main() -> None:
        table = Table()
        one = Process(table, "one")
        reader = one.read()
        await asyncio.sleep(2)
        table.longest = 1e9  # seconds, and a statement takes part of them
        one.enter("a")
        await asyncio.sleep(60)
        one.enter("b")
        one.leave("a")
        await asyncio.sleep(60)
        assert (reader.users, reader.left) == ({"b"}, ["a"])
        assert table.calls.count("write") == 1, "and they do not pile up"

    run(main())


def test_a_tab_of_which_the_others_see_nothing_hides_no_other_tab() -> None:
    async def main() -> None:
        process = Process(Table(), "one")
        reader = process.read()
        process.enter("a")
        await asyncio.sleep(2)
        process.keeper.enter(TOPIC, "a", "")  # PRESENCE_INFO has failed
        await asyncio.sleep(2)
        assert (reader.users, reader.left) == ({"a"}, [])

    run(main())


def test_what_the_table_has_lost_is_written_again() -> None:
    async def main() -> None:
        table = Table()
        one, two = Process(table, "one"), Process(table, "two")
        one.enter("a")
        reader = two.read()
        await asyncio.sleep(3)
        table.rows.clear()  # a flush, or a backup that is older
        one.leave("a")
        one.enter("b")
        await asyncio.sleep(3)
        table.rows.clear()
        await asyncio.sleep(SETTLED)
        assert reader.users == {"b"}
        assert [stored.row.key for stored in table.rows.values()] == ["b"]

    run(main())


def test_the_work_ends_with_the_last_one_and_without_readers_nothing_is_read() -> None:
    async def main() -> None:
        table = Table()
        process = Process(table, "one")
        process.enter("a")
        await asyncio.sleep(20)
        assert table.calls == ["write"]
        reader = process.read()
        await asyncio.sleep(2)
        process.leave("a")
        process.keeper.unwatch(reader.watch)
        await asyncio.sleep(0.5)
        assert process.keeper._task is None
        assert [stored.row.connections for stored in table.rows.values()] == [0]

    run(main())


USERS = ["a", "b", "c", "d"]
STEPS = st.one_of(
    st.tuples(st.just("enter"), st.sampled_from(USERS), st.integers(0, 2)),
    st.tuples(st.just("leave"), st.sampled_from(USERS), st.integers(0, 2)),
    st.tuples(st.just("move"), st.sampled_from(USERS), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.floats(0.01, 8), st.none()),
    st.tuples(st.just("read"), st.integers(0, 2), st.none()),
    st.tuples(st.just("kill"), st.integers(0, 2), st.none()),
    st.tuples(st.just("restart"), st.integers(0, 2), st.none()),
    st.tuples(st.just("fail"), st.floats(0.1, 4), st.none()),
)


@given(steps=st.lists(STEPS, max_size=30), seed=st.integers(0, 1_000))
def test_whatever_happens_all_know_who_is_there(steps: list[Any], seed: int) -> None:
    """Against a set of who is connected; nobody is told to have left who came back soon."""

    async def main() -> None:
        table = Table(seed)
        table.longest = 2.0
        names = iter(range(1_000))
        processes = [Process(table, f"p{next(names)}") for _ in range(3)]
        where: dict[str, list[int]] = {user: [] for user in USERS}  # processes, by number
        has_left: set[str] = set()
        told: list[Reader] = []

        async def come_back(*users: str) -> None:
            """Reconnect to any process, within a third of the grace."""
            await asyncio.sleep(table.random.uniform(0, GRACE / 3))
            for user in users:
                number = table.random.randrange(3)
                processes[number].enter(user)
                where[user].append(number)

        async def replace(number: int) -> None:
            told.extend(processes[number].readers)
            processes[number] = Process(table, f"p{next(names)}")
            back = [user for user in USERS for at in where[user] if at == number]
            for user in USERS:
                where[user] = [at for at in where[user] if at != number]
            await come_back(*back)

        for step, first, second in steps:
            if step == "enter":
                processes[second].enter(first)
                where[first].append(second)
            elif step in ("leave", "move") and where[first]:
                processes[where[first].pop()].leave(first)
                if step == "move":
                    await come_back(first)
                else:
                    has_left |= set() if where[first] else {first}
            elif step == "wait":
                await asyncio.sleep(first)
            elif step == "read":
                processes[first].read()
            elif step == "fail":
                table.is_failing = True
                await asyncio.sleep(first)
                table.is_failing = False
                await asyncio.sleep(5)  # until what was not written is
            elif step in ("kill", "restart"):
                getattr(processes[first], {"kill": "kill", "restart": "stop"}[step])()
                await replace(first)
        await asyncio.sleep(SETTLED)
        here = {user for user, places in where.items() if places}
        for process in processes:
            process.read()
            await asyncio.sleep(1)
            for reader in process.readers:
                assert reader.users == here
                assert set(reader.left) <= has_left
            told += process.readers
        for process in processes:
            if process.keeper._task is not None:
                process.keeper._task.cancel()

    run(main())
