"""Authentication: which of a request's credentials decides, and whom it stands for."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from django.conf import settings as django_settings
from django.http import parse_cookie
from django.utils import timezone

from ..conf import settings
from ..exceptions import NotIdentified
from ..utils.asgi import Scope, header, query
from ..utils.batching import Batcher
from ..utils.threads import DATABASE
from .cache import SingleFlightCache
from .identity import (
    ANONYMOUS,
    EVERY_CREDENTIAL,
    MAX_CREDENTIAL_LENGTH,
    Credential,
    Identity,
    digest,
)
from .sessions import find_sessions
from .tickets import TICKET_PREFIX, use_ticket
from .tokens import REFUSAL, find_tokens


async def authenticate(
    scope: Scope, credentials: Iterable[Credential] = EVERY_CREDENTIAL
) -> Identity:
    """Return the identity of an HTTP or WebSocket request, looked up in a shared thread.

    The first credential that was sent decides: a bad token is refused with `NotIdentified` even
    where a session would do, so that a client learns of its mistake. Without any: anonymous.
    """
    if "header" in credentials and (token := bearer_token(scope)) is not None:
        return await authenticate_token(token)
    parameters = query(scope)
    if "query" in credentials and "token" in parameters:
        return await authenticate_token(parameters["token"][0])
    if "ticket" in credentials and "ticket" in parameters:
        return await DATABASE.run(use_ticket, parameters["ticket"][0])
    if "session" in credentials and (cookie := header(scope, b"cookie")) is not None:
        session_key = parse_cookie(cookie).get(django_settings.SESSION_COOKIE_NAME)
        if session_key:
            return await _remembered("session", session_key, _sessions)
    return ANONYMOUS


async def authenticate_token(token: str) -> Identity:
    """Return the identity an access token stands for; raise `NotIdentified`."""
    if len(token) > MAX_CREDENTIAL_LENGTH:
        token = ""  # none of ours; not worth a hash
    identity = await _remembered("token", token, _tokens)
    if identity.expires is not None and identity.expires <= timezone.now():
        raise NotIdentified(REFUSAL)  # since it was looked up
    return identity


async def authenticate_message(token: str) -> Identity:
    """Return the identity of an access token or a ticket; raise `NotIdentified`."""
    if token.startswith(TICKET_PREFIX):
        return await DATABASE.run(use_ticket, token)
    return await authenticate_token(token)


async def _remembered(
    source: str, secret: str, find: Callable[[str], Awaitable[Identity]]
) -> Identity:
    key = (source, digest(secret))
    if identity_cache.is_refused(key):
        return ANONYMOUS
    return await identity_cache.get(key, lambda: find(secret), settings.IDENTITY_CACHE_SECONDS)


def bearer_token(scope: Scope) -> str | None:
    """Return the token of `Authorization: Bearer` (RFC 6750); None without one.

    Of several such headers none counts: whoever is in front may have read another one.
    """
    if sum(name == b"authorization" for name, _ in scope["headers"]) > 1:
        return ""
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


# By source and digest, so that a storm of reconnects is not a query each. The registry of live
# connections listens for changes and makes it forget; what the layer loses goes by its age.
identity_cache: Final = SingleFlightCache[tuple[str, str], Identity]()
# Requests that come in a storm share look-ups.
_tokens: Final = Batcher(find_tokens, repeat_alone=True)
_sessions: Final = Batcher(find_sessions, repeat_alone=True)
