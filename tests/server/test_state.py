"""What connections share, and when the server has given up a peer."""

import asyncio
from typing import Any

import pytest

from realtime.server.disconnect import DisconnectEvent
from realtime.server.limits import Limits
from realtime.server.state import ServerState


def state(**options: Any) -> ServerState:
    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    loop = asyncio.get_event_loop()
    return ServerState(loop=loop, limits=Limits(), application=application, **options)


class Session:
    task = None

    def __init__(self) -> None:
        self.gone = DisconnectEvent()

    def drain(self) -> None: ...


@pytest.mark.parametrize(
    ("interval", "timeout", "checks"), [(20, 20, 4), (20, 30, 5), (20, 1, 3), (10, 60, 14)]
)
async def test_a_peer_is_gone_one_ping_timeout_after_its_ping(
    interval: float, timeout: float, checks: int
) -> None:
    # Two checks are one interval; the ping is sent at the second.
    assert state(ping_interval=interval, ping_timeout=timeout).dead_after == checks


async def test_an_application_that_failed_is_logged_and_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("at /ws?token=secret")

    server, session = state(), Session()
    server.sessions.add(session)
    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    server.session_ended(session, task)
    assert not server.sessions
    assert "Exception inside application: at /ws?token=[redacted]" in caplog.text


async def fail_by_a_stray_cancellation() -> None:
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    await cancelled


@pytest.mark.parametrize(
    ("is_asked_for", "has_left", "is_error"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
async def test_a_cancellation_that_nobody_has_asked_for_is_an_error_while_the_peer_is_there(
    is_asked_for: bool, has_left: bool, is_error: bool, caplog: pytest.LogCaptureFixture
) -> None:
    task, session = asyncio.ensure_future(fail_by_a_stray_cancellation()), Session()
    if is_asked_for:
        task.cancel()
    if has_left:
        session.gone.set()
    await asyncio.wait([task])
    error = state().session_ended(session, task)
    assert isinstance(error, asyncio.CancelledError) is is_error
    assert ("in fail_by_a_stray_cancellation" in caplog.text) is is_error


async def test_an_action_has_the_client_as_daphne_writes_it() -> None:
    logged: list[Any] = []
    server = state(action_logger=lambda *words: logged.append(words))
    server.log_action("http", "complete", ["1.2.3.4", 5], path="/")
    server.log_action("websocket", "connected", None, path="/ws")
    assert logged == [
        ("http", "complete", {"client": "1.2.3.4:5", "path": "/"}),
        ("websocket", "connected", {"client": None, "path": "/ws"}),
    ]
