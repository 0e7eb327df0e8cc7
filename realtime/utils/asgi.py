"""ASGI: its types, and what is read of a request or a WebSocket handshake."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from django.http import HttpRequest

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def scope_of(request: HttpRequest) -> Scope:
    """Return the scope of a request. Under WSGI it is made of the environment, without "asgi"."""
    scope: Scope | None = getattr(request, "scope", None)
    if scope is None:
        scope = {
            "type": "http",
            "method": request.method,
            "scheme": request.META.get("wsgi.url_scheme", "http"),
            "path": request.path,
            "query_string": request.META.get("QUERY_STRING", "").encode("latin1"),
            "headers": [
                (name.lower().encode("latin1"), value.encode("latin1", "replace"))
                for name, value in request.headers.items()
            ],
            "client": (request.META.get("REMOTE_ADDR", ""), 0),
        }
        vars(request)["scope"] = scope
    return scope


def is_wsgi(request: HttpRequest) -> bool:
    """Return whether the request came by WSGI, under which nothing can be streamed."""
    return "asgi" not in scope_of(request)


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header, `name` in lower case; several of them are joined as Django does."""
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            # HTTP/2 may split the cookies over several headers (RFC 9113, section 8.2.3).
            separator = b"; " if name == b"cookie" else b","
            found = value if found is None else found + separator + value
    return None if found is None else found.decode("latin1")


def query(scope: Scope) -> dict[str, list[str]]:
    """Return the values of each parameter in the URL; an empty one counts."""
    raw = scope["query_string"]
    # The scopes of Django's own AsyncClient have a string where ASGI says bytes.
    text = raw if isinstance(raw, str) else raw.decode("latin1")
    return parse_qs(text, keep_blank_values=True)


def wants(scope: Scope, parameter: str) -> bool:
    """Return whether the URL says `?parameter=1`, or `true`."""
    return query(scope).get(parameter, [""])[-1] in ("1", "true")


async def read_body(receive: Receive, max_bytes: int) -> bytes | None:
    """Return the body, or its beginning once that is over `max_bytes`; None if the client left."""
    parts: list[bytes] = []
    size, is_whole = 0, False
    while not is_whole and size <= max_bytes:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        is_whole = not message.get("more_body", False)
    return b"".join(parts)


async def send_json(
    send: Send,
    status: int,
    content: Mapping[str, object],
    headers: Mapping[str, str] = {},
    kind: str = "http.response",
) -> None:
    """Send a whole response; `kind` is another one where a handshake is refused."""
    body = json.dumps(content).encode()
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        *((name.lower().encode(), value.encode()) for name, value in headers.items()),
    ]
    await send({"type": f"{kind}.start", "status": status, "headers": lines})
    await send({"type": f"{kind}.body", "body": body})
