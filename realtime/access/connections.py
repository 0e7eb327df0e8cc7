"""Live connections are checked again: on a timer, and at once when a user or token changes."""

import asyncio
import json
import logging
from typing import Final, Protocol

from ..conf import settings
from ..delivery.subscription import Subscription
from ..events.event import Event
from ..models import AccessToken
from ..utils.aio import PerLoop, spawn
from ..utils.threads import DATABASE
from .authentication import identity_cache
from .identity import Identity, digest
from .signals import TOPIC
from .users import find_user

logger = logging.getLogger("realtime.revocation")

CHUNK: Final = 20  # identities looked up in one turn of a database thread


class Connection(Protocol):
    """A live socket or stream that is in somebody's name."""

    async def recheck(self, identity: Identity | None) -> None:
        """Ask the permission rule again, with the user as it is now; None: nobody any more."""

    async def fail(self) -> None:
        """Close: whether it may go on can't be told. The client may come back."""


class ConnectionRegistry:
    """This process's live connections, by the identity they are open for."""

    def __init__(self) -> None:
        self.connections: dict[Identity, dict[Connection, None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, identity: Identity, connection: Connection) -> None:
        """Check `connection` from now on."""
        self.connections.setdefault(identity, {})[connection] = None
        if not self._tasks:
            self._tasks = [spawn(self._listen()), spawn(self._sweep())]

    def discard(self, identity: Identity, connection: Connection) -> None:
        """Check it no more."""
        connections = self.connections.get(identity, {})
        connections.pop(connection, None)
        if not connections:
            self.connections.pop(identity, None)
        if not self.connections and self._tasks:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            identity_cache.is_trusted = False
            identity_cache.forget()

    async def check(self, user_ids: set[str] | None = None, pause: float = 0.0) -> None:
        """Look up all identities, or those of some users, and tell their connections.

        `pause` is waited between chunks of them, in seconds.
        """
        identities = [
            identity
            for identity in self.connections
            if user_ids is None or str(identity.user.pk) in user_ids
        ]
        for start in range(0, len(identities), CHUNK):
            chunk = identities[start : start + CHUNK]
            for identity, fresh in zip(chunk, await _refresh(chunk), strict=True):
                self._tell(identity, fresh)
            await asyncio.sleep(pause)

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

    def _tell(self, identity: Identity, fresh: Identity | Exception | None) -> None:
        for connection in list(self.connections.get(identity, ())):
            # Each by itself: to tell a client that does not read may take for ever.
            spawn(_recheck(connection, fresh))

    async def _listen(self) -> None:
        """Hear of changes as they happen."""
        async with Subscription() as subscription:
            has_missed = True  # what has changed before we listened
            while True:
                try:
                    if TOPIC not in subscription.topics:
                        await subscription.add(TOPIC)
                        identity_cache.is_trusted = True
                    if has_missed:
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
        while True:
            await asyncio.sleep(settings.RECHECK_SECONDS / 2)
            # The second half of the time is spread over the chunks: thousands of sessions looked
            # up in one go would keep the event loop from its work.
            chunks = 1 + len(self.connections) // CHUNK
            try:
                await self.check(pause=settings.RECHECK_SECONDS / 2 / chunks)
            except Exception:
                logger.warning("Can't check live connections; trying again", exc_info=True)

    async def _hear(self, events: list[Event]) -> None:
        # Staff may publish anything to any topic, this one included.
        said = [json.loads(event.data) for event in events]
        changes = [change for change in said if isinstance(change, dict)]
        for change in changes:
            if session := change.get("session"):
                self.end_session(str(session))
            if user_id := change.get("sessions_of"):
                self.end_sessions_of(str(user_id))
        if users := {str(change["user"]) for change in changes if "user" in change}:
            identity_cache.forget(lambda identity: str(identity.user.pk) in users)
            await self.check(users)


async def _recheck(connection: Connection, fresh: Identity | Exception | None) -> None:
    try:
        if isinstance(fresh, Exception):
            raise fresh
        await connection.recheck(fresh)
    except Exception:
        # Unknown means denied.
        logger.exception("A connection could not be checked again, and is closed")
        await connection.fail()


async def _refresh(identities: list[Identity]) -> list[Identity | Exception | None]:
    """Return each identity as it is now.

    None if it stands for nobody any more, and the error where its look-up fails.

    Raises what the database raises while it does not answer: that says nothing of anybody.
    """
    try:
        return await DATABASE.run_twice(lambda: [_find(each) for each in identities])
    except Exception as error:
        if len(identities) > 1:  # one that fails must not keep the others from being checked
            return [found for each in identities for found in await _refresh([each])]
        await DATABASE.run_twice(AccessToken.objects.exists)
        return [error]


def _find(identity: Identity) -> Identity | None:
    user = find_user(identity.source, identity.key)
    return None if user is None else Identity(user, identity.source, identity.key)


def get_connections() -> ConnectionRegistry:
    """Return the live connections of the running event loop; a server process has one."""
    return _registries.get()


_registries: Final = PerLoop(ConnectionRegistry)
