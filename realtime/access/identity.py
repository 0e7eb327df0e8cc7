"""Who is asking: a Django session, an access token, or a single-use ticket."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs

from django.conf import settings as django_settings
from django.contrib import auth
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db.models import Q, QuerySet
from django.http import parse_cookie
from django.utils import timezone

from ..conf import settings
from ..exceptions import NotIdentified
from ..models import AccessToken, Ticket
from ..utils.batching import Batcher
from ..utils.threads import DATABASE
from .cache import identity_cache
from .permissions import User

Credential: TypeAlias = Literal["session", "header", "query", "ticket"]
EVERY_CREDENTIAL: Final[frozenset[Credential]] = frozenset({"session", "header", "query", "ticket"})
TOKEN_PREFIX: Final = "rt_"  # lets secret scanners find a token that was committed by mistake
MAX_CREDENTIAL_LENGTH: Final = 200  # longer ones are not ours; not worth a hash


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, and what says so: `source` and `key` are enough to look the user up again."""

    user: User
    source: Literal["session", "token", "ticket", "anonymous"]
    key: str = ""

    @property
    def session_key(self) -> str | None:
        """Of the session it rests on, if it does; a ticket may rest on one."""
        if self.source == "session":
            return self.key
        if self.source == "ticket" and self.key.startswith("session:"):
            return self.key.removeprefix("session:")
        return None


ANONYMOUS: Final = Identity(AnonymousUser(), "anonymous")


async def identify(
    scope: Mapping[str, Any], credentials: Iterable[Credential] = EVERY_CREDENTIAL
) -> Identity:
    """The identity of an HTTP or WebSocket request, looked up in a shared thread.

    The first credential that was sent decides: a bad token is refused with `NotIdentified` even
    where a session would do, so that a client learns of its mistake. Without any: anonymous.
    """
    headers = _headers(scope)
    raw = scope["query_string"]
    # The scopes of Django's own AsyncClient have a string where ASGI says bytes.
    text = raw if isinstance(raw, str) else raw.decode("latin1")
    query = parse_qs(text, keep_blank_values=True)
    if "header" in credentials and "authorization" in headers:
        scheme, _, token = headers["authorization"].partition(" ")
        if scheme.lower() == "bearer":
            return await identify_token(token.strip())
    if "query" in credentials and "token" in query:
        return await identify_token(query["token"][0])
    if "ticket" in credentials and "ticket" in query:
        return await DATABASE.run(_use_ticket, query["ticket"][0])
    if "session" in credentials and "cookie" in headers:
        session_key = parse_cookie(headers["cookie"]).get(django_settings.SESSION_COOKIE_NAME)
        if session_key:
            return await _remembered("session", session_key, _sessions)
    return ANONYMOUS


async def identify_token(token: str) -> Identity:
    """The identity an access token stands for; raises `NotIdentified`."""
    if len(token) > MAX_CREDENTIAL_LENGTH:
        token = ""  # none of ours; not worth a hash
    return await _remembered("token", token, _tokens)


def create_token(
    user: Any, *, name: str = "", expires_in: float | None = None
) -> tuple[str, AccessToken]:
    """Make an access token; `expires_in` is in seconds. The text can't be had again."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = None if expires_in is None else timezone.now() + timedelta(seconds=expires_in)
    row = AccessToken.objects.create(user=user, name=name, digest=digest(token), expires=expires)
    return token, row


async def create_ticket(identity: Identity) -> str:
    """A single-use ticket for a URL, good for `TICKET_SECONDS`; unused ones are swept here.

    It is no better than what it stands for: when that token is revoked or that session ends, what
    the ticket has opened is closed.
    """
    ticket = secrets.token_urlsafe(24)
    await DATABASE.run(_store_ticket, identity, ticket)
    return ticket


def digest(secret: str) -> str:
    """What is stored of a secret. It is 192 bits or more of chance: a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def look_up(source: str, key: str) -> User | None:
    """The user that an identity stands for now; None when it stands for nobody any more."""
    if source == "session":
        user = _find_session(key).user
        return user if user.is_authenticated else None
    if source == "token":
        token = _valid_tokens().filter(pk=key).select_related("user").first()
        return token.user if token and is_active(token.user) else None
    if source == "ticket":
        source, _, key = key.partition(":")
        return look_up(source, key)
    return ANONYMOUS.user


class _ReadOnlySession(dict[str, Any]):
    """What is in a session.

    auth.get_user renews the key of a session from before SECRET_KEY was changed (it is one of
    SECRET_KEY_FALLBACKS then). From here no cookie could carry the new key, and the user would be
    signed out.
    """

    def cycle_key(self) -> None:
        """Not from here."""

    def flush(self) -> None:
        """Not from here."""


async def _remembered(
    source: str, secret: str, find: Callable[[str], Awaitable[Identity]]
) -> Identity:
    key = (source, digest(secret))
    if identity_cache.is_refused(key):
        return ANONYMOUS
    return await identity_cache.get(key, lambda: find(secret))


async def _find_sessions(session_keys: Sequence[str]) -> list[Identity]:
    return await DATABASE.run_twice(lambda: [_find_session(key) for key in session_keys])


def _find_session(session_key: str) -> Identity:
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


def is_active(user: Any) -> bool:
    """Return what Django's own backend goes by: a user model need not have the attribute."""
    return bool(getattr(user, "is_active", True))


def _valid_tokens() -> QuerySet[AccessToken]:
    alive = Q(expires=None) | Q(expires__gt=timezone.now())
    return AccessToken.objects.filter(alive, revoked=None)


async def _find_tokens(tokens: Sequence[str]) -> list[Identity | BaseException]:
    return await DATABASE.run_twice(_look_up_tokens, tokens)


def _look_up_tokens(tokens: Sequence[str]) -> list[Identity | BaseException]:
    digests = [digest(token) for token in tokens]
    columns = ("digest", "pk", "last_used", "user_id")
    rows = _valid_tokens().filter(digest__in=digests).values_list(*columns)
    found = {each: rest for each, *rest in rows}
    users = get_user_model()._base_manager.in_bulk({user_id for *_, user_id in found.values()})
    now = timezone.now()
    before = now - timedelta(seconds=settings.TOKEN_TOUCH_SECONDS)
    answers: list[Identity | BaseException] = []
    stale: list[int] = []
    for each in digests:
        pk, last_used, user_id = found.get(each, (0, None, None))
        user = users.get(user_id)
        if user is None or not is_active(user):
            refusal = "The access token is unknown, expired or revoked: make a new one "
            answers.append(NotIdentified(refusal + "(manage.py createtoken, or the admin)."))
            continue
        answers.append(Identity(user, "token", str(pk)))
        if last_used is None or last_used < before:
            stale.append(pk)
    if stale:
        AccessToken.objects.filter(pk__in=stale).update(last_used=now)
    return answers


def _store_ticket(identity: Identity, ticket: str) -> None:
    now = timezone.now()
    Ticket.objects.filter(expires__lt=now).delete()
    expires = now + timedelta(seconds=settings.TICKET_SECONDS)
    user_id: Any = identity.user.pk
    # A ticket may be exchanged for another: both stand for the same.
    origin = identity.key if identity.source == "ticket" else f"{identity.source}:{identity.key}"
    Ticket.objects.create(user_id=user_id, digest=digest(ticket), origin=origin, expires=expires)


def _use_ticket(ticket: str) -> Identity:
    now = timezone.now()
    rows = Ticket.objects.filter(digest=digest(ticket[:MAX_CREDENTIAL_LENGTH]), expires__gt=now)
    found = rows.first()
    user = look_up("ticket", found.origin) if found is not None else None
    # The delete decides: of two that come with the same ticket, one finds it gone.
    if found is None or not rows.delete()[0] or user is None:
        raise NotIdentified(
            "The ticket is unknown, used or older than "
            f"{settings.TICKET_SECONDS} s: get a new one by POST."
        )
    return Identity(user, "ticket", found.origin)


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in (b"authorization", b"cookie"):
            key, text = name.decode(), value.decode("latin1")
            # HTTP/2 may split the cookies over several headers (RFC 9113, section 8.2.3).
            found[key] = f"{found[key]}; {text}" if key in found else text
    return found


# Those who come in a storm share look-ups.
_tokens: Final = Batcher(_find_tokens, repeat_alone=True)
_sessions: Final = Batcher(_find_sessions, repeat_alone=True)
