"""Authentication: which of a request's credentials decides, and whom it stands for."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from django.conf import settings as django_settings
from django.http import parse_cookie

from ..utils.batching import Batcher
from ..utils.threads import DATABASE
from .cache import identity_cache
from .identity import (
    ANONYMOUS,
    EVERY_CREDENTIAL,
    MAX_CREDENTIAL_LENGTH,
    Credential,
    Identity,
    digest,
)
from .sessions import find_sessions
from .tickets import use_ticket
from .tokens import find_tokens


async def authenticate(
    scope: Mapping[str, Any], credentials: Iterable[Credential] = EVERY_CREDENTIAL
) -> Identity:
    """Return the identity of an HTTP or WebSocket request, looked up in a shared thread.

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
            return await authenticate_token(token.strip())
    if "query" in credentials and "token" in query:
        return await authenticate_token(query["token"][0])
    if "ticket" in credentials and "ticket" in query:
        return await DATABASE.run(use_ticket, query["ticket"][0])
    if "session" in credentials and "cookie" in headers:
        session_key = parse_cookie(headers["cookie"]).get(django_settings.SESSION_COOKIE_NAME)
        if session_key:
            return await _remembered("session", session_key, _sessions)
    return ANONYMOUS


async def authenticate_token(token: str) -> Identity:
    """Return the identity an access token stands for; raise `NotIdentified`."""
    if len(token) > MAX_CREDENTIAL_LENGTH:
        token = ""  # none of ours; not worth a hash
    return await _remembered("token", token, _tokens)


async def _remembered(
    source: str, secret: str, find: Callable[[str], Awaitable[Identity]]
) -> Identity:
    key = (source, digest(secret))
    if identity_cache.is_refused(key):
        return ANONYMOUS
    return await identity_cache.get(key, lambda: find(secret))


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        if name in (b"authorization", b"cookie"):
            key, text = name.decode(), value.decode("latin1")
            # HTTP/2 may split the cookies over several headers (RFC 9113, section 8.2.3).
            found[key] = f"{found[key]}; {text}" if key in found else text
    return found


# Requests that come in a storm share look-ups.
_tokens: Final = Batcher(find_tokens, repeat_alone=True)
_sessions: Final = Batcher(find_sessions, repeat_alone=True)
