"""What is done before a worker counts as ready, and when it has ended."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from realtime.server import lifespan as module
from realtime.server.lifespan import Lifespan, StartupFailed

from .support import ROOT, Worker

APP = "tests.server.startup_apps"
LOGGER = "realtime.server"


def test_it_is_done_once_before_the_server_is_ready_whatever_fails() -> None:
    callbacks = [f"--on-startup={APP}:{name}" for name in ("fail", "note")]
    worker = Worker(*callbacks, app=APP)
    worker.expected = ["A callback failed at the start of the server"]
    try:
        assert worker.get("/") == b"startup, main thread, no loop, 1"
        assert worker.text.count("A callback failed at the start of the server") == 1
        assert "all has ended" not in worker.text
        worker.terminate()
        assert worker.process.wait(20) == 0
        assert worker.text.endswith("all has ended\n")
    finally:
        worker.stop()


def test_a_server_does_not_serve_an_application_that_says_it_can_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_STARTUP", "fails")
    command = [
        sys.executable,
        "-m",
        "realtime.server",
        "-u",
        "/nowhere/at/all",
        f"{APP}:application",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "The application failed to start: the model is not there" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("no_uvloop", ["", "1"])
def test_a_signal_that_comes_during_the_start_is_not_lost(
    no_uvloop: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REALTIME_NO_UVLOOP", no_uvloop)
    command = [sys.executable, "-m", "realtime.server", "-u", str(tmp_path / "socket")]
    command += [f"--on-startup={APP}:terminate", f"{APP}:application"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


async def unknown(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError(scope["type"])


async def returns(scope: Any, receive: Any, send: Any) -> None:
    assert scope["asgi"]["version"] == "3.0"


async def loops(scope: Any, receive: Any, send: Any) -> None:
    while True:
        await receive()


async def sends(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


@pytest.mark.parametrize("application", [unknown, returns, loops, sends])
async def test_an_application_that_does_not_know_it_is_served(
    application: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lifespan = Lifespan(application)
    async with asyncio.timeout(15):
        await lifespan.start()
        await lifespan.stop()
    assert caplog.text == ""


async def test_one_that_fails_afterwards_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no disk"})
        raise ZeroDivisionError

    lifespan = Lifespan(application)
    with caplog.at_level(logging.ERROR, LOGGER):
        await lifespan.start()
        await lifespan.stop()
    assert "The application failed to stop: no disk" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_one_that_does_not_stop_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.01)
    ended: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    lifespan = Lifespan(application)
    await lifespan.start()
    await lifespan.stop()
    assert ended == ["cancelled"]


async def test_one_that_goes_on_after_its_cancellation_does_not_keep_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.01)
    may_end = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    lifespan = Lifespan(application)
    await lifespan.start()
    stopping = asyncio.create_task(lifespan.stop())
    done, _ = await asyncio.wait([stopping], timeout=15)
    may_end.set()
    await stopping
    assert done
    assert "does not end" in caplog.text


async def test_a_start_can_be_given_up() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    lifespan = Lifespan(application)
    starting = asyncio.create_task(lifespan.start())
    await asyncio.sleep(0)
    lifespan.cancel()
    async with asyncio.timeout(15):
        await starting


async def test_a_start_that_failed_ends_the_application() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})
        await receive()

    with pytest.raises(StartupFailed):
        await Lifespan(application).start()
