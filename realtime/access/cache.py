"""Identities this process has looked up a moment ago: a storm of reconnects is not a query each.

The cache answers only while it is `trusted`: while somebody listens for revocations and makes it
forget who is concerned. What it could miss, an announcement that the layer loses, it forgets by
itself after `IDENTITY_CACHE_SECONDS`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from ..conf import settings
from ..utils.aio import spawn
from .identity import Identity

MAX_ENTRIES: Final = 10_000  # the oldest go

Key: TypeAlias = tuple[str, str]


class IdentityCache:
    """By kind of credential and its digest; several who ask at once share one look-up."""

    def __init__(self) -> None:
        self.trusted = False
        self._known: dict[Key, tuple[float, Identity]] = {}
        self._asked: dict[Key, asyncio.Task[Identity]] = {}
        self._refused: dict[Key, None] = {}

    async def get(self, key: Key, look_up: Callable[[], Awaitable["Identity"]]) -> "Identity":
        """Return the identity of `key`; raise what `look_up` raises, which is not kept."""
        seconds = settings.IDENTITY_CACHE_SECONDS
        if not self.trusted or seconds is None:
            return await look_up()
        now = asyncio.get_running_loop().time()
        entry = self._known.get(key)
        if entry is not None and entry[0] > now:
            return entry[1]
        task = self._asked.get(key)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = self._asked[key] = spawn(self._ask(key, look_up, now + seconds))
        return await asyncio.shield(task)

    def refuse(self, key: Key) -> None:
        """Refuse these credentials from now on, whatever a look-up says.

        Django announces a sign-out before it deletes the session.
        """
        while len(self._refused) >= MAX_ENTRIES:
            del self._refused[next(iter(self._refused))]
        self._refused[key] = None
        self._known.pop(key, None)
        self._asked.pop(key, None)

    def is_refused(self, key: Key) -> bool:
        """Whether `refuse` was told these."""
        return key in self._refused

    def forget(self, user_ids: set[str] | None = None) -> None:
        """Drop the identities of some users, or all."""
        # Whoever is being asked for may be one of them: the answer is not kept, or shared further.
        self._asked.clear()
        if user_ids is None:
            self._known.clear()
            return
        for key, (_, identity) in list(self._known.items()):
            if str(identity.user.pk) in user_ids:
                del self._known[key]

    async def _ask(
        self, key: Key, look_up: Callable[[], Awaitable["Identity"]], until: float
    ) -> "Identity":
        task = asyncio.current_task()
        try:
            identity = await look_up()
        except BaseException:
            if self._asked.get(key) is task:
                del self._asked[key]
            raise
        if self._asked.get(key) is task:
            del self._asked[key]
            self._known.pop(key, None)
            while len(self._known) >= MAX_ENTRIES:
                del self._known[next(iter(self._known))]
            self._known[key] = (until, identity)
        return identity


identity_cache: Final = IdentityCache()
