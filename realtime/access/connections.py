"""Live connections are checked again: on a timer, and at once when a user or token changes."""

import asyncio
import json
import logging
import time
from collections.abc import Iterable
from contextvars import Context
from datetime import datetime
from typing import Final, Protocol

from django.utils import timezone

from ..conf import settings
from ..delivery.subscription import Subscription
from ..events.event import Event
from ..metrics.series import Gauge
from ..processes.status import get_status
from ..utils.aio import PerLoop, cancel_and_wait, spawn
from .authentication import identity_cache
from .identity import Identity, digest
from .inspection import ConnectionInfo, answer
from .signals import TOPIC
from .users import refresh

logger = logging.getLogger("realtime.revocation")

END_MARGIN: Final = 0.05  # seconds: a timer may fire a little before the clock says so
LINGER_SECONDS: Final = 5.0  # after the last connection, in which changes are still heard of
CHUNK: Final = 20  # identities looked up in one turn of a database thread


class Connection(Protocol):
    """A live socket or stream of an identity."""

    def describe(self) -> ConnectionInfo:
        """Return what an operator may want to know of it."""

    async def recheck(self, identity: Identity | None) -> None:
        """Ask the permission rule again, with the user as it is now; None if signed out."""

    async def fail(self) -> None:
        """Close it, since its rights can't be checked; the client may come back."""


class ConnectionRegistry:
    """This process's live connections, by the identity they are open for."""

    def __init__(self) -> None:
        # With when each began, in seconds since the epoch.
        self.connections: dict[Identity, dict[Connection, float]] = {}
        self._ends: dict[Identity, tuple[datetime, asyncio.TimerHandle]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping: asyncio.TimerHandle | None = None
        # Users and tokens that have changed, and when, by the loop's clock.
        self._changed: dict[tuple[str, str], float] = {}
        self._missed = 0.0  # when changes were last missed, by the same clock

    def add(self, identity: Identity, connection: Connection) -> None:
        """Check `connection` from now on."""
        connections = self.connections.setdefault(identity, {})
        if connection not in connections:  # else it was only checked again
            connections[connection] = time.time()
            get_status().connections += 1
            self.check_if_changed(identity, connection)
        self._time_end(identity)
        if self._stopping is not None:
            self._stopping.cancel()
            self._stopping = None
        if not self._tasks:
            self._tasks = [spawn(self._listen()), spawn(self._sweep())]

    def discard(self, identity: Identity, connection: Connection) -> None:
        """Check it no more."""
        connections = self.connections.get(identity, {})
        if connections.pop(connection, None) is not None:
            get_status().connections -= 1
        if not connections:
            self.connections.pop(identity, None)
            self._forget_end(identity)
        if not self.connections and self._tasks and self._stopping is None:
            # Short streams that follow one another need not begin to listen each time.
            later = asyncio.get_running_loop().call_later
            self._stopping = later(LINGER_SECONDS, self._stop, context=Context())

    def _stop(self) -> list[asyncio.Task[None]]:
        """Listen no more; return what ends."""
        tasks, self._tasks, self._stopping = self._tasks, [], None
        for task in tasks:
            task.cancel()
        self._changed.clear()  # `_listen` begins with a check of all
        identity_cache.distrust()
        return tasks

    async def close(self) -> None:
        """Listen no more, also to what is connected."""
        if self._stopping is not None:
            self._stopping.cancel()
        if self._tasks:
            await cancel_and_wait(*self._stop())

    async def check(
        self, identities: Iterable[Identity] | None = None, seconds: float = 0.0
    ) -> None:
        """Look up all identities, or some, and tell their connections; spread over `seconds`."""
        loop = asyncio.get_running_loop()
        identities = list(self.connections if identities is None else identities)
        since = loop.time()
        for start in range(0, len(identities), CHUNK):
            chunk, begun = identities[start : start + CHUNK], loop.time()
            for identity, fresh in zip(chunk, await refresh(chunk), strict=True):
                if not self._is_outdated(identity, begun):
                    self._tell(identity, fresh)
            due = since + seconds * min(1, (start + CHUNK) / len(identities))
            await asyncio.sleep(max(0, due - loop.time()))

    def end_session(self, session: str) -> None:
        """End what lives on the session with this digest, even if it can still be found."""
        # Django announces a sign-out before it deletes the session.
        identity_cache.refuse(("session", session))
        for identity in list(self.connections):
            key = identity.session_key
            if key is not None and digest(key) == session:
                self._tell(identity, None)

    def end_sessions_of(self, user_id: str) -> None:
        """Close what lives on any session of a user; who is still signed in comes back."""
        for identity, connections in self.connections.items():
            if identity.session_key is not None and str(identity.user.pk) == user_id:
                for connection in connections:
                    spawn(connection.fail())

    def disconnect(self, user_id: str) -> None:
        """Close what a user has open. Whoever is still signed in can come back."""
        for identity in list(self.connections):
            if str(identity.user.pk) == user_id:
                self._tell(identity, None)

    def _tell(self, identity: Identity, fresh: Identity | Exception | None) -> None:
        connections = list(self.connections.get(identity, ()))
        if connections and isinstance(fresh, Identity):
            self._time_end(fresh)
        for connection in connections:
            # Each by itself: to tell a client that does not read may take for ever.
            spawn(self._recheck(connection, identity, fresh))

    async def _recheck(
        self, connection: Connection, identity: Identity, fresh: Identity | Exception | None
    ) -> None:
        if connection not in self.connections.get(identity, ()):
            return  # it has left meanwhile, or has another identity
        try:
            if isinstance(fresh, Exception):
                raise fresh
            await connection.recheck(fresh)
        except Exception:
            # Unknown means denied.
            logger.exception("A connection could not be checked again, and is closed")
            await connection.fail()

    def _time_end(self, identity: Identity) -> None:
        """Have it checked when its token ends, at the earliest end that was heard of."""
        end = identity.expires
        if end is None or (identity in self._ends and self._ends[identity][0] <= end):
            return
        self._forget_end(identity)
        seconds = max(0.0, (end - timezone.now()).total_seconds()) + END_MARGIN
        timer = asyncio.get_running_loop().call_later(seconds, self._has_ended, identity)
        self._ends[identity] = end, timer

    def _forget_end(self, identity: Identity) -> None:
        if identity in self._ends:
            self._ends.pop(identity)[1].cancel()

    def _has_ended(self, identity: Identity) -> None:
        del self._ends[identity]
        spawn(self._check_ended(identity))

    async def _check_ended(self, identity: Identity) -> None:
        try:
            await self.check([identity])  # it may have been given more time
        except Exception as error:
            self._tell(identity, error)  # it is not known to have

    def check_if_changed(self, identity: Identity, connection: Connection) -> None:
        """Check a connection whose identity may have been looked up just before it changed."""
        session = identity.session_key
        if session is not None and identity_cache.is_refused(("session", digest(session))):
            spawn(self._recheck(connection, identity, None))
        elif self._changed and not self._changed.keys().isdisjoint(_marks(identity)):
            spawn(self._check_new(identity, connection))

    async def _check_new(self, identity: Identity, connection: Connection) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            [fresh] = await refresh([identity])
        except Exception as error:
            fresh = error  # of a new connection nothing is known: the client may come back
        if not self._is_outdated(identity, begun):
            await self._recheck(connection, identity, fresh)

    def _is_outdated(self, identity: Identity, begun: float) -> bool:
        """Return whether there was a change since a look-up began at `begun`, by the loop's clock.

        What it found may be older than what the look-up for the change has told already.
        """
        changes = (self._changed.get(mark, 0.0) for mark in _marks(identity))
        return max(self._missed, *changes) > begun

    async def _listen(self) -> None:
        """Hear of changes as they happen."""
        async with Subscription() as subscription:
            has_missed = True  # what has changed before we listened
            while True:
                try:
                    if TOPIC not in subscription.topics:
                        await subscription.add(TOPIC)
                        identity_cache.trust()
                    if has_missed:
                        self._missed = asyncio.get_running_loop().time()
                        identity_cache.forget()
                        await self.check()
                        has_missed = False
                    items = await subscription.read()
                    if subscription.dropped:  # more changes at once than were kept
                        subscription.dropped, has_missed = 0, True
                    else:
                        await self._hear([e for e in items if isinstance(e, Event)])
                except Exception:
                    has_missed = True
                    logger.warning("Can't hear of revocations; trying again", exc_info=True)
                    await asyncio.sleep(1)

    async def _sweep(self) -> None:
        """Check all every `RECHECK_SECONDS`: what was not announced, or not heard."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(settings.RECHECK_SECONDS / 2)
            long_ago = loop.time() - settings.RECHECK_SECONDS
            self._changed = {mark: at for mark, at in self._changed.items() if at > long_ago}
            # In the second half of the time: thousands of sessions looked up in one go would keep
            # the event loop from its work.
            try:
                await self.check(seconds=settings.RECHECK_SECONDS / 2)
            except Exception:
                logger.warning("Can't check live connections; trying again", exc_info=True)

    async def _hear(self, events: list[Event]) -> None:
        # Superusers may publish anything to any topic, this one included.
        said = [json.loads(event.data) for event in events]
        changes = [change for change in said if isinstance(change, dict)]
        for change in changes:
            if session := change.get("session"):
                self.end_session(str(session))
            if user_id := change.get("sessions_of"):
                self.end_sessions_of(str(user_id))
            if user_id := change.get("disconnect"):
                self.disconnect(str(user_id))
            if question := change.get("inspect"):
                spawn(answer(self.connections, question))
        kinds = "user", "token"
        marks = {
            (kind, str(change[kind])) for change in changes for kind in kinds if kind in change
        }

        def is_stale(identity: Identity) -> bool:
            return not marks.isdisjoint(_marks(identity))

        if marks:
            self._changed |= dict.fromkeys(marks, asyncio.get_running_loop().time())
            identity_cache.forget(is_stale)
            await self.check(filter(is_stale, self.connections))


def _marks(identity: Identity) -> tuple[tuple[str, str], ...]:
    """Return the names that a change has for an identity: its user, and the token it rests on."""
    user, key = ("user", str(identity.user.pk)), identity.token_key
    return (user,) if key is None else (user, ("token", key))


def get_connections() -> ConnectionRegistry:
    """Return the live connections of the running event loop; a server process has one."""
    return _registries.get()


_registries: Final = PerLoop(ConnectionRegistry, ConnectionRegistry.close)


def _count_users() -> int:
    users = {identity.user.pk for identity in get_connections().connections}
    return len(users - {None})


USERS: Final = Gauge(
    "realtime_users",
    "Users with a connection; one who has some in two processes counts twice.",
    read=_count_users,
)
