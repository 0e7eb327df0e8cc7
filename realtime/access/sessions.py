"""Django's sessions as a credential, looked up without a request."""

from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from django.conf import settings as django_settings
from django.contrib import auth

from ..utils.threads import DATABASE
from .identity import ANONYMOUS, Identity


class _ReadOnlySession(dict[str, Any]):
    """What is in a session.

    auth.get_user renews the key of a session from before SECRET_KEY was changed (it is one of
    SECRET_KEY_FALLBACKS then). From here no cookie could carry the new key, and the user would be
    signed out.
    """

    def cycle_key(self) -> None:
        """Do nothing: no cookie could carry the change from here."""

    def flush(self) -> None:
        """Do nothing: no cookie could carry the change from here."""


async def find_sessions(session_keys: Sequence[str]) -> list[Identity]:
    """Return the identity of each session; anonymous for one that is over."""
    return await DATABASE.run_twice(lambda: [find_session(key) for key in session_keys])


def find_session(session_key: str) -> Identity:
    """Return the identity of one session, as `django.contrib.auth.get_user` has it."""
    if "\0" in session_key:  # which PostgreSQL would refuse to look for
        return ANONYMOUS
    engine = import_module(django_settings.SESSION_ENGINE)
    # auth.get_user checks the backend, the session's hash (so a new password ends it) and
    # is_active; all it wants of a request is its session.
    session = _ReadOnlySession(engine.SessionStore(session_key).items())
    request: Any = SimpleNamespace(session=session)
    user = auth.get_user(request)
    if not user.is_authenticated:
        return ANONYMOUS
    return Identity(user, "session", session_key)
