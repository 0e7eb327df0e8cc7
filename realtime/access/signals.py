"""What Django tells of users, tokens and sessions that change, published to all processes."""

from typing import Any, Final

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookie
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from ..delivery.publish import publish
from ..models import AccessToken
from .identity import digest

TOPIC: Final = "realtime.revocation"  # what has changed; for superusers alone


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


def disconnect_user(user: Any) -> None:
    """End the live connections of a user, in all processes.

    Whoever is still signed in, or has a token, can come back: deactivate the user before, or revoke
    the token, to keep them out.
    """
    _publish(disconnect=str(user.pk))


def _publish(**change: str) -> None:
    publish(TOPIC, change, ephemeral=True)


def _user_saved(
    *, instance: Any, created: bool, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    # Every login saves last_login; that changes nobody's rights.
    if not created and update_fields != frozenset({"last_login"}):
        _publish(user=str(instance.pk))


def _user_deleted(*, instance: Any, **kwargs: Any) -> None:
    _publish(user=str(instance.pk))


def _token_changed(*, instance: AccessToken, created: bool = False, **kwargs: Any) -> None:
    if created:
        return
    if instance.user_id is None:
        _publish(token=str(instance.pk))
    else:
        _publish(user=str(instance.user_id))


def _logged_out(*, request: Any, user: Any = None, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    if session is not None and session.session_key:
        _publish(session=digest(session.session_key))
    if user is not None and isinstance(session, SignedCookie):
        # Its key is all that is in it: a connection from before it last changed has another.
        _publish(sessions_of=str(user.pk))


def _session_deleted(*, instance: Any, **kwargs: Any) -> None:
    # Not what clearsessions sweeps away: an expired session has no connection.
    if instance.expire_date > timezone.now():
        _publish(session=digest(instance.session_key))
