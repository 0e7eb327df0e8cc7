"""ASGI's lifespan: the application is told before the first connection, and after the last."""

import asyncio
from enum import IntEnum, auto
from typing import Any, Final

from realtime.server.access_log import logger
from realtime.server.request_threads import Application

STOP_SECONDS: Final = 5.0  # that an application gets after `lifespan.shutdown`
SCOPE: Final = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}


class StartupFailed(Exception):
    """The application says that it can't serve, and why."""


class Phase(IntEnum):
    """What the application has been told, or has answered."""

    NEW = auto()
    STARTING = auto()  # told to start
    STARTED = auto()
    STOPPING = auto()  # told to stop


class Lifespan:
    """Run an application once for the whole life of its server; many do not know this scope."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._phase = Phase.NEW
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Return once the application has started, or does not know this scope.

        Raises StartupFailed.
        """
        loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run())
        self._task.add_done_callback(self._started)
        try:
            await self._answer
        except StartupFailed:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Tell the application that the server stops, and wait until it has returned."""
        if self._task is not None and not self._task.done():
            self._stopping.set()
            await asyncio.wait([self._task], timeout=STOP_SECONDS)
            self._task.cancel()
            _, left = await asyncio.wait([self._task], timeout=STOP_SECONDS)
            if left:
                logger.error("The application's lifespan does not end, though it was cancelled")

    def cancel(self) -> None:
        """End a start that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._application(dict(SCOPE), self._receive, self._send)
        except Exception:
            if self._phase >= Phase.STARTED:  # else it does not know this scope
                logger.exception("Exception in the application's lifespan")

    def _started(self, task: "asyncio.Task[None] | None" = None) -> None:
        if not self._answer.done():
            self._answer.set_result(None)

    async def _receive(self) -> dict[str, Any]:
        if self._phase is Phase.NEW:
            self._phase = Phase.STARTING
            return {"type": "lifespan.startup"}
        if self._phase is not Phase.STARTED:
            raise RuntimeError("There is no message but the one that is to be answered.")
        await self._stopping.wait()
        self._phase = Phase.STOPPING
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._phase = Phase.STARTED
                self._started()
            case "lifespan.startup.failed" if not self._answer.done():
                self._answer.set_exception(StartupFailed(message.get("message", "")))
            case "lifespan.shutdown.failed":
                logger.error("The application failed to stop: %s", message.get("message", ""))
            case "lifespan.shutdown.complete":
                pass
            case kind:
                raise ValueError(f"A lifespan can't send {kind!r}.")
