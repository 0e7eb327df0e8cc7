"""The other processes that listen.

A process that is alone need not announce: nobody would hear it but itself, and that costs as much
as all the rest of a publication. Each hub says that it listens when it starts, and asks who else
does; from then on it says so as often as it looks at the heads. Who is asked, or hears of one it
did not know, answers it. Who is answered looks at the heads at once: what the other has not
announced, because it knew of nobody, is in the log.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from ..conf import settings
from .announcements import from_hello, this_process, to_hello
from .layer import Layer

HUBS: Final = "realtime.hubs"  # the group of all hubs
ROUNDS: Final = 5  # who has not said hello for so many times as long as it said has gone


class Company:
    """Who else listens, as far as they have said so lately; True if anybody does."""

    def __init__(self, layer: Layer, on_answer: Callable[[], None]) -> None:
        self._layer = layer
        self._on_answer = on_answer
        self._until: dict[
            str, float
        ] = {}  # when a process is taken to have gone, by the loop's clock
        self._has_asked = False
        self._to: dict[str, None] = {}  # whom the next hello answers
        self._wake = asyncio.Event()  # to say hello at once

    def __bool__(self) -> bool:
        return bool(self._until)

    async def greet(self) -> None:
        """Say again and again that this process listens."""
        await self._layer.ready()
        while True:
            await self._say_hello()
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.HEAD_CHECK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            self._forget()

    async def leave(self) -> None:
        """Say nothing more."""
        await self._layer.leave(HUBS)

    def ask(self) -> None:
        """Find out anew who else listens: the layer was away."""
        self._has_asked = False
        self._wake.set()

    def hear(self, message: Mapping[str, Any]) -> None:
        """Somebody has said hello, perhaps this process; ValueError if it is no hello of ours."""
        hello = from_hello(message)
        if hello is None:
            return
        if hello.asks or hello.process not in self._until:
            self._to[hello.process] = None
            self._wake.set()
        now = asyncio.get_running_loop().time()
        self._until[hello.process] = now + ROUNDS * hello.every
        if this_process() in hello.to:
            self._on_answer()

    async def _say_hello(self) -> None:
        # Joined each time: perhaps the layer has forgotten us.
        if not await self._layer.join(HUBS):
            return
        to, asks = list(self._to), not self._has_asked
        hello = to_hello(settings.HEAD_CHECK_SECONDS, asks=asks, to=to)
        if await self._layer.send(HUBS, hello):
            self._has_asked = self._has_asked or asks
            for process in to:
                self._to.pop(process, None)

    def _forget(self) -> None:
        now = asyncio.get_running_loop().time()
        for process, until in list(self._until.items()):
            if until < now:
                del self._until[process]
