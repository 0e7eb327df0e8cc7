"""What Django tells of users, tokens and sessions that change, published to all processes."""

from collections.abc import Callable
from typing import Any, Final

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookie
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db.models.signals import ModelSignal, post_delete, post_save
from django.utils import timezone

from ..delivery.publish import publish
from ..models import AccessToken
from .identity import digest

TOPIC: Final = "realtime.revocation"  # what has changed; for superusers alone


def connect_signals() -> None:
    """Register what Django calls; called when the app registry is ready."""
    User = get_user_model()._meta.concrete_model
    _connect(post_save, _user_saved, User)
    _connect(post_delete, _user_deleted, User)
    _connect(post_save, _token_changed, AccessToken)
    _connect(post_delete, _token_changed, AccessToken)
    # Any session store tells of a sign-out; one in the database also of a session that ends by
    # signing in as somebody else, or in the admin.
    user_logged_out.connect(_logged_out, dispatch_uid="realtime-logged-out")
    _connect(post_delete, _session_deleted, AbstractBaseSession)


def _connect(signal: ModelSignal, receiver: Callable[..., None], base: Any) -> None:
    """Register for a model and what is derived from it: Django sends the class of the instance."""
    # Not for all senders at once: what has a receiver is deleted row by row.
    for model in apps.get_models():
        if issubclass(model, base):
            signal.connect(receiver, sender=model, dispatch_uid=f"realtime{receiver.__name__}")


def disconnect_user(user: Any) -> None:
    """End the live connections of a user, in all processes.

    Whoever is still signed in, or has a token, can come back: deactivate the user before, or revoke
    the token, to keep them out.
    """
    _publish(disconnect=_user_key(user))


def _publish(**change: str) -> None:
    publish(TOPIC, change, ephemeral=True)


def _user_saved(
    *, instance: Any, created: bool, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    # Every login saves last_login; that changes nobody's rights.
    if not created and update_fields != frozenset({"last_login"}):
        _publish(user=_user_key(instance))


def _user_deleted(*, instance: Any, **kwargs: Any) -> None:
    _publish(user=_user_key(instance))


def _user_key(instance: Any) -> str:
    # A model that is derived may have another primary key.
    return str(getattr(instance, get_user_model()._meta.pk.attname))


def _token_changed(*, instance: AccessToken, created: bool = False, **kwargs: Any) -> None:
    if created:
        return
    if instance.user_id is None:
        _publish(token=str(instance.id))
    else:
        _publish(user=str(instance.user_id))


def _logged_out(*, request: Any, user: Any = None, **kwargs: Any) -> None:
    session = getattr(request, "session", None)
    if session is not None and session.session_key:
        _publish(session=digest(session.session_key))
    if user is not None and isinstance(session, SignedCookie):
        # Its key is all that is in it: a connection from before it last changed has another.
        _publish(sessions_of=_user_key(user))


def _session_deleted(*, instance: Any, **kwargs: Any) -> None:
    # Not what clearsessions sweeps away: an expired session has no connection.
    if instance.expire_date > timezone.now():
        _publish(session=digest(instance.session_key))
