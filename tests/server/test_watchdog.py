"""`--blocking-seconds`: what holds the event loop of a server is found over real sockets."""

import asyncio
import re
import time
from collections.abc import Callable

import pytest

from realtime.server.watchdog import LoopWatchdog

from ..support.attempts import three_tries, three_tries_of
from .support import Worker, eventually, frame

HELD = re.compile(r"has been held for (\d\.\d\d) s")


@pytest.mark.parametrize("no_uvloop", ["", "1"], ids=["uvloop", "asyncio"])
def test_a_view_and_a_consumer_that_sleep(
    no_uvloop: str, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Worker]
) -> None:
    monkeypatch.setenv("REALTIME_NO_UVLOOP", no_uvloop)
    monkeypatch.setenv("REALTIME_BLOCKING_SECONDS", "0.2")

    def sleep() -> None:
        watched = start(app="tests.server.blocking_apps")
        assert watched.get("/awaits") == b"awake"
        assert "has been held" not in watched.text
        assert watched.get("/sleeps") == b"awake"
        eventually(lambda: len(HELD.findall(watched.text)) == 1)
        assert "tests/server/blocking_apps.py" in watched.text.replace("\\", "/")
        assert "time.sleep(0.8)  # in a view" in watched.text
        with watched.client() as client:
            client.upgrade("/")
            client.send(frame(1, b"sleep"))
            assert client.frame() == (0x81, b"awake")
        eventually(lambda: len(HELD.findall(watched.text)) == 2)
        assert "time.sleep(0.8)  # in a consumer" in watched.text
        assert all(0.2 <= float(seconds) < 0.8 for seconds in HELD.findall(watched.text))
        assert "asyncio/events.py" not in watched.text, "the loop's own frames are left out"

    three_tries(sleep)


def test_nothing_is_watched_by_default(start) -> None:
    worker = start(app="tests.server.blocking_apps")
    assert worker.get("/sleeps") == b"awake"
    assert "has been held" not in worker.text


def test_a_loop_that_ends_before_it_answers_is_let_go() -> None:
    reports: list[str] = []
    loop = asyncio.new_event_loop()
    watch = LoopWatchdog(loop, 0.1, reports.append)
    watch.start()
    eventually(lambda: not watch._answered)  # asked, and the loop does not run
    loop.close()
    watch._thread.join(20)
    assert not watch._thread.is_alive()


def test_a_loop_that_ends_is_let_go() -> None:
    reports: list[str] = []
    loop = asyncio.new_event_loop()
    watch = LoopWatchdog(loop, 1.0, reports.append)  # it asks for the first time after 0.25 s
    watch.start()
    loop.close()
    watch._thread.join(20)
    assert not watch._thread.is_alive()
    assert reports == []


async def test_a_busy_loop_that_gives_others_their_turn_is_fine() -> None:
    async def be_busy() -> None:
        reports: list[str] = []
        watch = LoopWatchdog(asyncio.get_running_loop(), 0.5, reports.append)
        watch.start()
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            sum(range(1000))
            await asyncio.sleep(0)
        watch.stop()
        assert reports == []

    await three_tries_of(be_busy)
