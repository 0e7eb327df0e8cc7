"""What every view here needs of its request: identity, permission, and errors as JSON."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, update_wrapper
from itertools import islice
from random import uniform
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

from asgiref.sync import sync_to_async
from django.core.exceptions import RequestDataTooBig
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import MediaType
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.cache import patch_vary_headers
from django.views.decorators.csrf import csrf_exempt

from ..access.authentication import authenticate
from ..access.identity import Identity
from ..access.inspection import address_of
from ..access.origins import check_origin, cors_headers
from ..access.permissions import require, require_signed_in
from ..access.scopes import require_unscoped
from ..access.user_info import publisher_of, sender_meta
from ..conf import settings
from ..delivery.publish import publish_now
from ..delivery.published import publishing_via
from ..events.payload import decode_data
from ..events.trace_context import incoming_trace
from ..exceptions import (
    DatabaseUnavailable,
    DataTooLarge,
    NotAllowed,
    RealtimeError,
)
from ..limits.client import Client
from ..limits.publishing import admit, max_body_bytes, note_published
from ..streaming.response import StreamResponse
from ..streaming.sse import encode_sse
from ..utils.asgi import Scope, header, scope_of
from ..utils.outages import ANSWERED_ERRORS, answer_to
from .stream_guard import StreamGuard

P = ParamSpec("P")
View: TypeAlias = Callable[Concatenate[HttpRequest, P], Awaitable[HttpResponseBase]]
AsyncView: TypeAlias = Callable[Concatenate[HttpRequest, P], Coroutine[Any, Any, HttpResponseBase]]

IDENTITY: Final = "realtime.identity"  # in the scope: of a view that has asked for its user
EVENT_STREAM_RANGES: Final = ("text/event-stream", "text/*", "*/*")
FORMS: Final = ("multipart/form-data", "application/x-www-form-urlencoded")
MAX_RANGES: Final = 16
RETRY_SPREAD: Final = 3.0  # times SSE_RETRY_MS, at most, after which a client comes back
PREFLIGHT_SECONDS: Final = 600  # a browser may take it that what it was told still holds
CROSS_ORIGIN_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Traceparent, X-CSRFToken"
)


def error_response(
    status: int, detail: str, code: str = RealtimeError.code, **headers: str
) -> JsonResponse:
    """Return an error as every view here answers it: `code` for programs, `detail` says why."""
    return JsonResponse({"code": code, "detail": detail}, status=status, headers=headers)


def accepts_event_stream(request: HttpRequest) -> bool:
    """Return whether `Accept` takes text/event-stream (RFC 9110, section 12.5.1).

    Django's `accepts` parses each media range, 4 ms for a header of 8 KB. Here only those are
    parsed that fit, and `MAX_RANGES` of them.
    """
    fitting = (
        MediaType(media_range)
        for media_range in request.META.get("HTTP_ACCEPT", "*/*").lower().split(",")
        if media_range.partition(";")[0].strip() in EVENT_STREAM_RANGES
    )
    return any(media_range.quality for media_range in islice(fitting, MAX_RANGES))


def json_errors(*methods: str) -> Callable[[View[P]], AsyncView[P]]:
    """Allow these methods, and answer this package's errors with their status and sentence.

    Pages of ALLOWED_ORIGINS may read what is answered, and a browser that asks beforehand is told
    so (CORS). The view is in no transaction of its request's, whatever ATOMIC_REQUESTS says.
    """

    def decorate(view: View[P]) -> AsyncView[P]:
        async def wrapper(
            request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponseBase:
            if request.method in methods:
                try:
                    response = _guard(request, await view(request, *args, **kwargs))
                except RequestDataTooBig as error:
                    response = error_response(413, str(error), DataTooLarge.code)
                except ANSWERED_ERRORS as caught:
                    response = _answer(request, answer_to(caught))
            else:
                response = _answer_without_view(request, ", ".join(methods))
            return _admit_origin(request, response)

        update_wrapper(wrapper, view)
        for alias in connections:  # ATOMIC_REQUESTS, with which Django refuses to call async views
            transaction.non_atomic_requests(using=alias)(wrapper)
        # Django's check would answer a wrong method with 403, as a page. Those views that change
        # something check for CSRF by `writer`: a bearer token, which no browser sends by itself,
        # needs no CSRF token, and a session does.
        return csrf_exempt(wrapper)

    return decorate


def _answer(request: HttpRequest, error: RealtimeError) -> HttpResponseBase:
    if (
        request.method == "GET"
        and isinstance(error, DatabaseUnavailable)
        and "text/event-stream" in request.headers.get("Accept", "")
    ):
        # A browser's EventSource gives up for good at any other status (WHATWG HTML, section
        # 9.2.3). From an end it comes back, with its id, and not all at once.
        retry = int(settings.SSE_RETRY_MS * uniform(1, RETRY_SPREAD))
        headers = {"Cache-Control": "no-store"}
        body = encode_sse(retry=retry)
        return HttpResponse(body, content_type="text/event-stream", headers=headers)
    return error_response(error.status, str(error), error.code, **error.headers)


def _answer_without_view(request: HttpRequest, allowed: str) -> HttpResponseBase:
    """Answer a browser's question before a page's request (a preflight), or a wrong method."""
    headers = request.headers
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in headers:
        return error_response(405, f"Use {allowed} here.", Allow=allowed)
    if not cors_headers(scope_of(request)):
        detail = "This origin is not allowed (ALLOWED_ORIGINS)."
        return error_response(403, detail, NotAllowed.code)
    rights = {
        "Access-Control-Allow-Methods": allowed,
        "Access-Control-Allow-Headers": CROSS_ORIGIN_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return HttpResponse(status=204, headers=rights)


def _admit_origin(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Let a page that may read it read the answer."""
    patch_vary_headers(response, ["Origin"])
    for name, value in cors_headers(scope_of(request)).items():
        response.headers.setdefault(name, value)
    return response


def _guard(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Let a stream end with the identity that its view has asked for."""
    identity = scope_of(request).get(IDENTITY)
    if identity is not None and isinstance(response, StreamResponse):
        StreamGuard(response, identity, address_of(scope_of(request)))
    return response


async def reader(request: HttpRequest, topics: list[str]) -> Identity:
    """Return the identity; raise `NotIdentified` or `NotAllowed` unless it may read all topics."""
    scope = scope_of(request)
    identity = await authenticate(scope, check_origin(scope))
    for name in topics:
        await require(identity.user, name, "read")
    return identity


class CSRFCheck(CsrfViewMiddleware):
    """Django's, without the page of a refusal: its template would be read from the disk."""

    def _reject(self, request: HttpRequest, reason: str) -> HttpResponse:
        return HttpResponse(reason, status=403)


async def writer(request: HttpRequest) -> Identity:
    """Return the identity; raise `NotAllowed` for a session without its CSRF token."""
    identity = await authenticate(scope_of(request))
    if identity.source == "session" and await _lacks_csrf_token(request):
        raise NotAllowed(
            "The CSRF token is missing or wrong: send the csrftoken cookie's value as "
            "X-CSRFToken, or use an access token."
        )
    return identity


async def _lacks_csrf_token(request: HttpRequest) -> bool:
    check = partial(CSRFCheck(_wants_csrf).process_view, request, _wants_csrf, (), {})
    if request.method == "POST" and request.content_type in FORMS:
        return await sync_to_async(check)() is not None  # it parses the form, 9 ms for 1 MB
    return check() is not None


def _wants_csrf(request: HttpRequest) -> HttpResponse:
    """Stand for a view without csrf_exempt."""
    return HttpResponse()


async def require_user(request: HttpRequest) -> Any:
    """Return the user of a request to a view of a site's own.

    Raises `NotIdentified` or `NotAllowed`.

    Checks the Origin of what reads and the CSRF token of what changes something, and refuses what
    another site made a browser ask for; and a token with scopes, which are about topics. A
    StreamResponse of the view ends when the user signs out, is deactivated or deleted, or the
    token ends or is revoked. A file that nginx sends for it (`ACCEL_REDIRECT`) is not cut.
    """
    if request.method in ("GET", "HEAD"):
        identity = await reader(request, [])
    else:
        identity = await writer(request)
    require_unscoped(identity.user)
    require_signed_in(identity.user)
    scope_of(request)[IDENTITY] = identity
    return identity.user


def idempotency_key(scope: Scope) -> str | None:
    """Return the header: UTF-8, as the keys that come as JSON, or else Latin-1."""
    key = header(scope, b"idempotency-key")
    try:
        return None if key is None else key.encode("latin1").decode()
    except UnicodeDecodeError:
        return key  # as `fetch` sends it


async def publish_body(
    client: Client, topic: str, body: bytes, type: str, key: str | None, traceparent: str | None
) -> tuple[int, dict[str, str | None]]:
    """Publish a request's body, the data as JSON (UTF-8), with the client's user as its sender.

    `traceparent` is the header as it came. Returns the answer's status and content: 201,
    or 200 where it came before with the same key.

    Raises `DataTooLarge` for a body that can't be an event before it is parsed.
    """
    if len(body) > (limit := max_body_bytes()):
        raise DataTooLarge(f"The body is over {limit} bytes; publish a reference instead.")
    user = client.identity.user
    await admit(client, [topic])
    data, meta = decode_data(body), await sender_meta(user)
    with publishing_via("http"), incoming_trace(traceparent):
        event = await publish_now(
            topic, data, type=type, meta=meta, key=key, publisher=publisher_of(user)
        )
    await note_published(client, [event])
    return 200 if event.is_repeated else 201, {"id": event.id}
