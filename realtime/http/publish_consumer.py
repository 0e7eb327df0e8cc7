"""Publishing by POST with an access token, in front of Django.

`POST /topics/<topic>/events` with `Authorization: Bearer` needs nothing that Django's request
handling adds: no session, no form, no CSRF token, no page. Past it, a publication costs half of
the processor time.
"""

from channels.consumer import AsyncConsumer
from django.conf import settings as django_settings

from ..access.authentication import authenticate_token, bearer_token
from ..access.hosts import host_of, is_host_allowed, scheme_of
from ..access.origins import cors_headers
from ..access.permissions import require
from ..events.payload import DEFAULT_TYPE
from ..events.topic import validate_topic
from ..limits.client import Client
from ..limits.publishing import max_body_bytes
from ..utils.asgi import Application, Receive, Scope, Send, header, query, read_body, send_json
from ..utils.outages import ANSWERED_ERRORS, answer_to
from ..utils.threads import release_request_thread
from .requests import idempotency_key, publish_body


class PublishConsumer(AsyncConsumer):
    """Answer what the view `realtime:topic` would, with the same statuses.

    It stands in a URLRouter at the path of that view. Anything but a POST of a bearer token to an
    allowed host goes on to `application`: Django. So does, with SECURE_SSL_REDIRECT, what came by
    plain HTTP. The site's middleware does not see what is answered here.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not AsyncConsumer's own loop: it sends every message through a thread (to close old
        # connections, of which we hold none).
        token = bearer_token(scope) if scope["method"] == "POST" and _is_allowed(scope) else None
        if token is None:
            await self.application(scope, receive, send)
            return
        try:
            topic = validate_topic(scope["url_route"]["kwargs"]["topic"])
            body = await read_body(receive, max_body_bytes())
            if body is None:
                return
            identity = await authenticate_token(token)
            client = Client(identity, scope)
            await client.take("PUBLISHES")
            await require(identity.user, topic, "publish")
            kind = query(scope).get("type", [DEFAULT_TYPE])[-1]
            key = idempotency_key(scope)
            trace = header(scope, b"traceparent")
            status, content = await publish_body(client, topic, body, kind, key, trace)
        except ANSWERED_ERRORS as caught:
            error = answer_to(caught)
            headers = error.headers | cors_headers(scope)
            content = {"code": error.code, "detail": str(error)}
            await send_json(send, error.status, content, headers)
        else:
            await send_json(send, status, content, cors_headers(scope))
        finally:
            await release_request_thread()  # which the site's rule may have used


def _is_allowed(scope: Scope) -> bool:
    """Return whether Django would serve this request here: its host, and its scheme."""
    if django_settings.SECURE_SSL_REDIRECT and scheme_of(scope) != "https":
        return False
    return is_host_allowed(host_of(scope) or "")
