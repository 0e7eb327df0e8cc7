"""The views: streams of topics, their history, publishing and tickets.

Each asks itself who may, also for access tokens, of which LoginRequiredMiddleware knows nothing.
"""

from contextlib import suppress
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException
from django.http.response import HttpResponseBase

from ..access.authentication import authenticate
from ..access.identity import Identity
from ..access.origins import check_origin
from ..access.permissions import require
from ..access.tickets import create_ticket
from ..conf import settings
from ..conf.topics import topic_settings
from ..delivery.hub import positions_now
from ..events.payload import DEFAULT_TYPE
from ..events.position import Position, parse_position, parse_positions
from ..events.topic import validate_topic
from ..exceptions import (
    DataTooLarge,
    HistoryGone,
    InvalidKey,
    InvalidTopic,
    NotIdentified,
    PresenceOff,
    TooManyRequests,
)
from ..limits.client import Client
from ..presence.member_subscription import require_kept
from ..presence.members import attendance_of
from ..streaming.ndjson import after_and_limit
from ..utils.asgi import is_wsgi, scope_of, wants
from .history import HistoryResponse
from .publish_batch import publish_batch
from .requests import (
    accepts_event_stream,
    error_response,
    idempotency_key,
    json_errors,
    publish_body,
    reader,
    writer,
)
from .topic_stream import TopicStreamResponse

NEEDS_UPGRADE: Final = (
    "This is a WebSocket. Where the client asked for one, something in front of the server does "
    "not pass the headers Upgrade and Connection on."
)
NEEDS_ASGI: Final = (
    "WSGI can't stream. Serve the site by ASGI: with `manage.py serve`, or with this package's "
    '`runserver`, for which "realtime" has to come before other apps that have one. In tests, use '
    "realtime.testing.event_stream."
)
TICKET_BODY_BYTES: Final = 4_096  # such as a form with the CSRF token


@json_errors("GET")
async def topic_events(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`GET /topics/<topic>/events`: one topic as server-sent events."""
    validate_topic(topic)
    after = _after(request)
    positions = {} if after is None else {topic: parse_position(after)}
    identity = await reader(request, [topic])
    return await _stream(request, identity, [topic], positions, combined=False)


@json_errors("GET")
async def events(request: HttpRequest) -> HttpResponseBase:
    """`GET /events?topic=a&topic=b`: several topics on one stream."""
    topics = list(dict.fromkeys(validate_topic(name) for name in request.GET.getlist("topic")))
    if not topics:
        detail = "Name at least one topic: /events?topic=room.lobby"
        return error_response(400, detail, InvalidTopic.code)
    if len(topics) > settings.MAX_TOPICS:
        detail = f"{settings.MAX_TOPICS} topics are the most for one stream."
        return error_response(400, detail, TooManyRequests.code)
    after = _after(request)
    positions = {} if after is None else parse_positions(after, topics)
    identity = await reader(request, topics)
    return await _stream(request, identity, topics, positions, combined=True)


@json_errors("POST")
async def publish_event(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`POST /topics/<topic>/events?type=`: the body is the event's JSON data."""
    validate_topic(topic)
    # First of all: the CSRF check reads what is called a form, and leaves no body.
    body = request.body
    client = Client(await writer(request), scope_of(request))
    await client.take("PUBLISHES")
    await require(client.identity.user, topic, "publish")
    kind = request.GET.get("type", DEFAULT_TYPE)
    key = idempotency_key(scope_of(request))
    trace = request.headers.get("traceparent")
    status, content = await publish_body(client, topic, body, kind, key, trace)
    return JsonResponse(content, status=status)


@json_errors("POST")
async def publish_events(request: HttpRequest) -> HttpResponseBase:
    """`POST /events`: the body is a batch of events, for several topics."""
    body = request.body  # first, as above
    client = Client(await writer(request), scope_of(request))
    if "Idempotency-Key" in request.headers:  # passed over, it would promise what does not hold
        raise InvalidKey('Give each event of the batch a "key" of its own; the batch has none.')
    status, content = await publish_batch(client, body, request.headers.get("traceparent"))
    return JsonResponse(content, status=status)


@login_not_required
@json_errors("GET")
async def history(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`GET /topics/<topic>/history?after=&limit=`: the kept events as NDJSON, oldest first."""
    validate_topic(topic)
    after = parse_position(request.GET.get("after", "0"))
    limit = after_and_limit(request)["limit"]
    identity = await reader(request, [topic])
    try:
        response = await HistoryResponse.begin(
            identity, topic, after, limit, has_meta=wants(scope_of(request), "meta")
        )
    except HistoryGone as error:
        position = (await positions_now([topic]))[topic]
        content = {"code": error.code, "detail": str(error), "id": str(position)}
        return JsonResponse(content, status=error.status)
    response.headers["Vary"] = "Cookie, Authorization"
    if is_wsgi(request):
        body = b"".join([part async for part in response])
        return HttpResponse(body, headers=response.headers)
    return response


@login_not_required
@json_errors("GET")
async def presence(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`GET /topics/<topic>/presence?count=1`: who reads the topic now, or how many."""
    validate_topic(topic)
    scope = scope_of(request)
    identity = await authenticate(scope, check_origin(scope))
    await require(identity.user, topic, "presence")
    require_kept(topic)
    attendance = await attendance_of(topic)
    text = attendance.count_text if wants(scope_of(request), "count") else attendance.text
    headers = {"Vary": "Cookie, Authorization", "Cache-Control": "no-store"}
    return HttpResponse(text, content_type="application/json", headers=headers)


@login_not_required
@json_errors("GET", "POST")
async def topic_view(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`/topics/<topic>/events`: reads by GET, publishes by POST."""
    view = topic_events if request.method == "GET" else publish_event
    return await view(request, topic)


@login_not_required
@json_errors("GET", "POST")
async def events_view(request: HttpRequest) -> HttpResponseBase:
    """`/events`: reads several topics by GET, publishes to them by POST."""
    return await (events if request.method == "GET" else publish_events)(request)


@login_not_required
@json_errors("POST")
async def tickets(request: HttpRequest) -> HttpResponseBase:
    """`POST /realtime/tickets`: a single-use ticket for a URL, instead of the token itself."""
    with suppress(RawPostDataException):  # the site has parsed it already
        if len(request.body) > TICKET_BODY_BYTES:  # first, as above
            raise DataTooLarge(f"A ticket needs no body; {TICKET_BODY_BYTES} bytes are the most.")
    identity = await writer(request)
    if identity.source == "anonymous":
        raise NotIdentified("Sign in, or send an access token, to get a ticket.")
    await Client(identity, scope_of(request)).take("OPENS")
    ticket = await create_ticket(identity)
    return JsonResponse({"ticket": ticket, "expires_in": settings.TICKET_SECONDS}, status=201)


@login_not_required
@json_errors("GET", "HEAD")
async def websocket_only(request: HttpRequest, /, **parts: str) -> HttpResponseBase:
    """Answer a plain request for a WebSocket's address (RFC 9110, section 15.5.22)."""
    return error_response(426, NEEDS_UPGRADE, Upgrade="websocket", Connection="Upgrade")


def _after(request: HttpRequest) -> str | None:
    # The header wins: a reconnecting EventSource sends it along with the URL it began with.
    # By META: the mapping of all headers is made anew for each request.
    return request.META.get("HTTP_LAST_EVENT_ID") or request.GET.get("after")


async def _stream(
    request: HttpRequest,
    identity: Identity,
    topics: list[str],
    after: dict[str, Position],
    *,
    combined: bool,
) -> HttpResponseBase:
    if is_wsgi(request):
        return error_response(501, NEEDS_ASGI)
    if not accepts_event_stream(request):
        accept = request.headers.get("Accept")
        return error_response(406, f"This is text/event-stream, which {accept!r} leaves out.")
    watched: list[str] = []
    if wants(scope_of(request), "presence"):
        watched = [topic for topic in topics if topic_settings(topic).has_presence]
        if not watched:
            raise PresenceOff(topics[0])
        for topic in watched:
            await require(identity.user, topic, "presence")
    client = Client(identity, scope_of(request))
    await client.require_place()
    client.reserve()
    # "From now on" means now, not when the body is first asked for: a client that sees the
    # answer's headers and then publishes has to get the event.
    live = [topic for topic in topics if topic not in after]
    try:
        now = await positions_now(live) if live else {}
    except BaseException:
        client.disconnect()
        raise
    response = TopicStreamResponse(
        scope_of(request),
        client,
        topics,
        after,
        now=now,
        combined=combined,
        is_resumed=not live,
        has_meta=wants(scope_of(request), "meta"),
        watched=watched,
    )
    response.headers["Vary"] = "Cookie, Authorization"
    return response
