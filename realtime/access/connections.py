"""Live connections are checked again: on a timer, and at once when a user or token changes."""

import asyncio
import json
import logging
from typing import Any, Final, Protocol

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from ..conf import settings
from ..delivery.publish import publish
from ..delivery.subscription import Subscription
from ..events.event import Event
from ..models import AccessToken
from ..utils.aio import PerLoop, spawn
from ..utils.threads import DATABASE
from .cache import identity_cache
from .identity import Identity, digest
from .users import look_up

logger = logging.getLogger("realtime.revocation")

TOPIC: Final = "realtime.revocation"  # whom to look at; for staff only, by the default rule
CHUNK: Final = 20  # identities looked up in one turn of a database thread


class Connection(Protocol):
    """A live socket or stream that is in somebody's name."""

    async def recheck(self, identity: Identity | None) -> None:
        """Ask the permission rule again, with the user as it is now; None: nobody any more."""

    async def fail(self) -> None:
        """Close: whether it may go on can't be told. The client may come back."""


class Watch:
    """The identities behind this process's live connections."""

    def __init__(self) -> None:
        self._connections: dict[Identity, dict[Connection, None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, identity: Identity, connection: Connection) -> None:
        """Check `connection` from now on."""
        self._connections.setdefault(identity, {})[connection] = None
        if not self._tasks:
            self._tasks = [spawn(self._listen()), spawn(self._sweep())]

    def discard(self, identity: Identity, connection: Connection) -> None:
        """Check it no more."""
        connections = self._connections.get(identity, {})
        connections.pop(connection, None)
        if not connections:
            self._connections.pop(identity, None)
        if not self._connections and self._tasks:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            identity_cache.trusted = False
            identity_cache.forget()

    async def check(self, user_ids: set[str] | None = None, pause: float = 0.0) -> None:
        """Look the identities up again, or those of some users, and tell their connections.

        `pause` is waited between chunks of them, in seconds.
        """
        identities = [
            identity
            for identity in self._connections
            if user_ids is None or str(identity.user.pk) in user_ids
        ]
        for start in range(0, len(identities), CHUNK):
            chunk = identities[start : start + CHUNK]
            for identity, fresh in zip(chunk, await _look_up_again(chunk), strict=True):
                self._tell(identity, fresh)
            await asyncio.sleep(pause)

    def end_session(self, session: str) -> None:
        """End what lives on the session with this digest, even if it can still be found."""
        identity_cache.refuse(("session", session))
        for identity in list(self._connections):
            key = identity.session_key
            if key is not None and digest(key) == session:
                self._tell(identity, None)

    def _tell(self, identity: Identity, fresh: Identity | Exception | None) -> None:
        for connection in list(self._connections.get(identity, ())):
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
                        identity_cache.trusted = True
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
        """Look at everybody every `RECHECK_SECONDS`: what was not announced, or not heard."""
        while True:
            await asyncio.sleep(settings.RECHECK_SECONDS / 2)
            # The second half of the time is spread over the chunks: thousands of sessions looked
            # up in one go would keep the event loop from its work.
            chunks = 1 + len(self._connections) // CHUNK
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
        if users := {str(change["user"]) for change in changes if "user" in change}:
            identity_cache.forget(users)
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


def get_watch() -> Watch:
    """Return the watch of the running event loop; a server process has one."""
    return _watches.get()


_watches: Final = PerLoop(Watch)


async def _look_up_again(identities: list[Identity]) -> list[Identity | Exception | None]:
    """Return each identity as it is now.

    None if it stands for nobody any more, and the error where its look-up fails.

    Raises what the database raises while it does not answer: that says nothing of anybody.
    """
    try:
        return await DATABASE.run_twice(lambda: [_look_up(each) for each in identities])
    except Exception as error:
        if len(identities) > 1:  # one that fails must not keep the others from being checked
            return [found for each in identities for found in await _look_up_again([each])]
        await DATABASE.run_twice(AccessToken.objects.exists)
        return [error]


def _look_up(identity: Identity) -> Identity | None:
    user = look_up(identity.source, identity.key)
    return None if user is None else Identity(user, identity.source, identity.key)


def _announce(**change: str) -> None:
    publish(TOPIC, change, ephemeral=True)


def _user_saved(
    *, instance: Any, created: bool, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    # Every login saves last_login; that changes nobody's rights.
    if not created and update_fields != frozenset({"last_login"}):
        _announce(user=str(instance.pk))


def _user_deleted(*, instance: Any, **kwargs: Any) -> None:
    _announce(user=str(instance.pk))


def _token_changed(*, instance: AccessToken, created: bool = False, **kwargs: Any) -> None:
    if not created:
        _announce(user=str(instance.user_id))


def _logged_out(*, request: Any, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    if session is not None and session.session_key:
        _announce(session=digest(session.session_key))


def _session_deleted(*, instance: Any, **kwargs: Any) -> None:
    # Not what clearsessions sweeps away: an expired session has no connection.
    if instance.expire_date > timezone.now():
        _announce(session=digest(instance.session_key))


def connect_signals() -> None:
    """Register what Django calls; called when the app registry is ready."""
    User = get_user_model()
    post_save.connect(_user_saved, sender=User, dispatch_uid="realtime-user-saved")
    post_delete.connect(_user_deleted, sender=User, dispatch_uid="realtime-user-deleted")
    post_save.connect(_token_changed, sender=AccessToken, dispatch_uid="realtime-token-saved")
    post_delete.connect(_token_changed, sender=AccessToken, dispatch_uid="realtime-token-deleted")
    # Any session store tells of a sign-out; one in the database also of a session that ends by
    # signing in as somebody else, or in the admin.
    user_logged_out.connect(_logged_out, dispatch_uid="realtime-logged-out")
    if apps.is_installed("django.contrib.sessions"):
        session = apps.get_model("sessions", "Session")
        post_delete.connect(_session_deleted, sender=session, dispatch_uid="realtime-session")
