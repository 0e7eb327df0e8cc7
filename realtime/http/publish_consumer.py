"""Publishing by POST with an access token, in front of Django.

`POST /topics/<topic>/events` with `Authorization: Bearer` needs nothing that Django's request
handling adds: no session, no form, no CSRF token, no page. Past it, a publication costs half of
the processor time. Wrap the site's HTTP application: `PublishEndpoint(get_asgi_application())`.
"""

import json
import re
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Final

from django.conf import settings as django_settings
from django.http.request import split_domain_port, validate_host
from django.urls import NoReverseMatch, reverse

from ..access.authentication import authenticate_token, bearer_token
from ..access.permissions import require
from ..events.payload import DEFAULT_TYPE
from ..events.topic import validate_topic
from ..exceptions import RealtimeError
from ..utils.asgi import Application, Receive, Scope, Send, header, query, read_body
from ..utils.threads import release_request_thread
from .requests import max_body_bytes, publish_body

SAMPLE: Final = "topic"  # any topic: to see where the site has put the view's URL


class Disconnected(Exception):
    """The client left before its request was whole."""


class PublishEndpoint:
    """Answers what the view `realtime:topic` would, with the same statuses.

    Anything but a POST of a bearer token to an allowed host goes on to `application`.

    The site's middleware does not see what is answered here. With SECURE_SSL_REDIRECT, what came
    by plain HTTP goes on to `application` too.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            topic = self._topic_of(scope["path"])
            token = _bearer(scope) if topic is not None else None
            if topic is not None and token is not None and not scope.get("root_path"):
                await _answer(scope, topic, token, receive, send)
                return
        await self.application(scope, receive, send)

    def _topic_of(self, path: str) -> str | None:
        if self._pattern is None:
            return None
        match = self._pattern.fullmatch(path)
        return match[1] if match else None

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        """The view's path; None where the site's URLs don't include it."""
        try:
            before, _, after = reverse("realtime:topic", args=[SAMPLE]).rpartition(SAMPLE)
        except NoReverseMatch:
            return None
        return re.compile(rf"{re.escape(before)}([^/]+){re.escape(after)}")


async def _answer(scope: Scope, topic: str, token: str, receive: Receive, send: Send) -> None:
    headers: Iterable[tuple[str, str]] = ()
    try:
        event_id = await _publish(scope, topic, token, receive)
    except Disconnected:
        return
    except RealtimeError as error:
        status, answer, headers = error.status, {"detail": str(error)}, error.headers.items()
    else:
        status, answer = 201, {"id": event_id}
    finally:
        await release_request_thread()  # which the site's rule may have used
    body = json.dumps(answer).encode()
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        *((name.encode(), value.encode()) for name, value in headers),
    ]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def _publish(scope: Scope, topic: str, token: str, receive: Receive) -> str:
    validate_topic(topic)
    body = await read_body(receive, max_body_bytes())
    if body is None:
        raise Disconnected
    identity = await authenticate_token(token)
    await require(identity.user, topic, "publish")
    type = query(scope).get("type", [DEFAULT_TYPE])[-1]
    event = await publish_body(topic, body, type)
    return str(event.position)


def _bearer(scope: Scope) -> str | None:
    """Return the bearer token, if this request may be answered here."""
    if django_settings.SECURE_SSL_REDIRECT and scope["scheme"] != "https":
        return None
    if not _is_allowed(header(scope, b"host") or "", tuple(django_settings.ALLOWED_HOSTS)):
        return None
    return bearer_token(scope)


@lru_cache(maxsize=64)
def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
