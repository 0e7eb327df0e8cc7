"""A bounded cache in which callers that ask for the same at once share one load."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from ..utils.aio import shielded, spawn

MAX_ENTRIES: Final = 10_000  # the oldest go

Key = TypeVar("Key")
Value = TypeVar("Value")


class SingleFlightCache(Generic[Key, Value]):
    """Values by key, each for some seconds, and keys that are refused.

    It keeps nothing for an event loop that does not trust it: there, nobody makes it forget what
    has changed.
    """

    def __init__(self) -> None:
        # For each loop by itself: one that ends without `distrust` is not asked any more.
        self._trusting: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._values: dict[Key, tuple[float, Value]] = {}
        self._loading: dict[Key, asyncio.Task[Value]] = {}
        self._refused: dict[Key, None] = {}

    @property
    def is_trusted(self) -> bool:
        """Return whether the running event loop trusts it."""
        return asyncio.get_running_loop() in self._trusting

    def trust(self) -> None:
        """Keep values for the running event loop: from now on it hears of what has changed."""
        self._trusting.add(asyncio.get_running_loop())

    def distrust(self) -> None:
        """Keep nothing for the running event loop any more, and forget all."""
        self._trusting.discard(asyncio.get_running_loop())
        self.forget()

    async def get(
        self, key: Key, load: Callable[[], Awaitable[Value]], seconds: float | None
    ) -> Value:
        """Return the value of `key`, at most `seconds` old; None: just loaded.

        Raises what `load` raises, which is not kept.
        """
        if not self.is_trusted or seconds is None:
            return await load()
        loop = asyncio.get_running_loop()
        now = loop.time()
        entry = self._values.get(key)
        if entry is not None and entry[0] > now:
            return entry[1]
        task = self._loading.get(key)
        if task is None or task.get_loop() is not loop:
            task = self._loading[key] = spawn(self._load(key, load, now + seconds))
        try:
            return await shielded(task)
        finally:
            del task  # which keeps what it raises, and that this frame

    def refuse(self, key: Key) -> None:
        """Refuse a key from now on, whatever a load would return."""
        _put(self._refused, key, None)
        self._values.pop(key, None)
        self._loading.pop(key, None)

    def is_refused(self, key: Key) -> bool:
        """Return whether `refuse` was called with this key."""
        return key in self._refused

    def forget(self, is_stale: Callable[[Value], bool] = lambda _: True) -> None:
        """Drop the values that are stale; without a function, all."""
        # What is being loaded may be one of them: it is not kept, or shared further.
        self._loading.clear()
        for key, (_, value) in list(self._values.items()):
            if is_stale(value):
                self._values.pop(key, None)  # perhaps it went in another thread

    async def _load(self, key: Key, load: Callable[[], Awaitable[Value]], until: float) -> Value:
        task = asyncio.current_task()
        try:
            value = await load()
            if self._loading.get(key) is task:
                self._values.pop(key, None)
                _put(self._values, key, (until, value))
            return value
        finally:
            if self._loading.get(key) is task:
                del self._loading[key]
            del task  # as above


def _put(entries: dict[Key, Any], key: Key, entry: Any) -> None:
    while len(entries) >= MAX_ENTRIES:
        del entries[next(iter(entries))]
    entries[key] = entry
