"""One generation at work in this process: reads the provider's answer, publishes it as events."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import ExitStack, aclosing, suppress
from math import inf
from typing import Any, Final

from ..delivery.announce import announce
from ..events.event import Event
from ..exceptions import ProviderError
from ..streaming.source_context import use_stream_thread
from ..utils.aio import PerLoop, spawn
from ..utils.pump import chunked
from ..utils.threads import DATABASE
from . import store
from .conf import settings
from .models import Generation
from .provider import Answer, Provider

logger = logging.getLogger("realtime.llm")

SHUTDOWN_SECONDS: Final = 5.0  # for the last events of what a stopping process was answering
BYTES_PER_CHAR: Final = 6  # the most that JSON needs for one (an escaped control character)

STOPPING: Final = "The server stopped before the answer was complete; ask again."
BROKEN: Final = "The answer could not be completed; ask again."


class Run:
    """One generation at work in this process."""

    def __init__(self, row: Generation, slot: ExitStack, provider: Provider, prompt: str) -> None:
        self._row = row
        self._slot = slot  # held until the end
        self._provider = provider
        self._prompt = prompt
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start a task that outlives the request."""
        RUNNING.get()[self._row.name] = self
        self._task = spawn(self._run())

    def cancel(self) -> None:
        """Close the upstream request and end."""
        assert self._task is not None
        self._task.cancel()

    async def ended(self) -> None:
        """Wait for the end."""
        assert self._task is not None
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            with self._slot:
                await self._publish_answer()
        except asyncio.CancelledError:
            # A single answer that is cancelled has been ended already; then this does nothing.
            await self._end("error", {"detail": STOPPING})
            raise
        except ProviderError as error:
            await self._end("error", {"detail": str(error)})
        except Exception:
            logger.exception("An answer on %s failed", self._row.topic)
            await self._end("error", {"detail": BROKEN})
        finally:
            RUNNING.get().pop(self._row.name, None)

    async def _publish_answer(self) -> None:
        async with Answer(self._provider, self._prompt) as answer:
            # The first piece goes out at once, those that follow soon after in one event. It is
            # read ahead of the log by as much as LLM_MAX_ANSWER_CHARS allows.
            seconds, idle = settings.LLM_BATCH_SECONDS, settings.LLM_HEARTBEAT_SECONDS
            texts = chunked(answer, "".join, inf, seconds, idle=idle, enter=use_stream_thread)
            async with aclosing(texts):
                async for text in texts:
                    if not await self._write(text):
                        return
        assert answer.stop is not None
        await self._end("done", answer.stop.data())

    async def _write(self, text: str) -> bool:
        """Publish some text, or just a sign of life; return False when the answer has ended."""
        events = await DATABASE.run(store.append, self._row, _in_batches(text))
        if events is None:
            seconds = settings.LLM_UNHEARD_SECONDS
            detail = f"Nobody has listened for {seconds:g} s, so the answer was not completed."
            await self._end("error", {"detail": detail})  # if nobody else has ended it
            return False
        await announce_all(events)
        return True

    async def _end(self, type: str, data: dict[str, Any]) -> None:
        try:
            row = store.running(self._row.pk)
            await announce_all([await DATABASE.run(store.end, row, type, data)])
        except Exception:
            # The search for answers without a sign of life will end it.
            logger.exception("The end of the answer on %s could not be published", self._row.topic)


async def _stop_all(running: dict[str, Run]) -> None:
    """End what this process is answering, since its loop ends."""
    runs = list(running.values())
    for run in runs:
        run.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(SHUTDOWN_SECONDS):
            await asyncio.gather(*(run.ended() for run in runs))


RUNNING: Final = PerLoop[dict[str, Run]](dict, _stop_all)  # by the generation's name


def _in_batches(text: str) -> list[str]:
    size = min(settings.LLM_BATCH_CHARS, (settings.MAX_EVENT_BYTES - 20) // BYTES_PER_CHAR)
    return [text[first : first + size] for first in range(0, len(text), max(1, size))]


async def announce_all(events: Iterable[Event | None]) -> None:
    """Announce those that are events."""
    await announce([event for event in events if event is not None])
