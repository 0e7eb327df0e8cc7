"""The HTTP side: streams of topics, publishing, tickets, health."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias

from channels.layers import get_channel_layer
from django.core.exceptions import RequestDataTooBig
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.csrf import csrf_exempt

from ..access.authentication import authenticate
from ..access.identity import Identity
from ..access.origins import origin_allowed
from ..access.permissions import require
from ..access.tickets import create_ticket
from ..conf import settings
from ..delivery.hub import positions_now
from ..delivery.publish import publish_body
from ..eventlog import get_event_log
from ..events.payload import DEFAULT_TYPE
from ..events.position import Position, parse_position, parse_positions
from ..events.topic import validate_topic
from ..exceptions import HistoryGone, NotAllowed, NotIdentified, RealtimeError
from ..server.extensions import server_state
from ..streaming.ndjson import after_and_limit
from ..utils.asgi import scope_of
from .history import HistoryResponse
from .topic_stream import TopicStreamResponse

P = ParamSpec("P")
View: TypeAlias = Callable[Concatenate[HttpRequest, P], Awaitable[HttpResponseBase]]
AsyncView: TypeAlias = Callable[Concatenate[HttpRequest, P], Coroutine[Any, Any, HttpResponseBase]]

READY_SECONDS: Final = 3.0  # what /readyz waits for the log, and for the layer


def problem(status: int, detail: str, **headers: str) -> JsonResponse:
    """Return an error as every view here answers it."""
    return JsonResponse({"detail": detail}, status=status, headers=headers)


def answers_errors(*methods: str) -> Callable[[View[P]], AsyncView[P]]:
    """Allow these methods, and answer this package's errors with their status and sentence.

    The view is in no transaction of its request's, whatever ATOMIC_REQUESTS says.
    """

    def decorate(view: View[P]) -> AsyncView[P]:
        async def wrapper(
            request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs
        ) -> HttpResponseBase:
            if request.method not in methods:
                allowed = ", ".join(methods)
                return problem(405, f"Use {allowed} here.", Allow=allowed)
            try:
                return await view(request, *args, **kwargs)
            except RequestDataTooBig as error:
                return problem(413, str(error))
            except RealtimeError as error:
                return problem(error.status, str(error), **error.headers)

        update_wrapper(wrapper, view)
        for alias in connections:  # ATOMIC_REQUESTS, with which Django refuses to call async views
            transaction.non_atomic_requests(using=alias)(wrapper)
        # Django's check would answer a wrong method with 403, as a page. Those views that change
        # something check for CSRF by _writer: a bearer token, which no browser sends by itself,
        # needs no CSRF token, and a session does.
        return csrf_exempt(wrapper)

    return decorate


@answers_errors("GET")
async def topic_events(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`GET /topics/<topic>/events`: one topic as server-sent events."""
    validate_topic(topic)
    after = _after(request)
    positions = {} if after is None else {topic: parse_position(after)}
    identity = await _reader(request, [topic])
    return await _stream(request, identity, [topic], positions, combined=False)


@answers_errors("GET")
async def events(request: HttpRequest) -> HttpResponseBase:
    """`GET /events?topic=a&topic=b`: several topics on one stream."""
    topics = list(dict.fromkeys(validate_topic(name) for name in request.GET.getlist("topic")))
    if not topics:
        return problem(400, "Name at least one topic: /events?topic=room.lobby")
    if len(topics) > settings.MAX_TOPICS:
        return problem(400, f"{settings.MAX_TOPICS} topics are the most for one stream.")
    after = _after(request)
    positions = {} if after is None else parse_positions(after, topics)
    identity = await _reader(request, topics)
    return await _stream(request, identity, topics, positions, combined=True)


@answers_errors("POST")
async def publish_event(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`POST /topics/<topic>/events?type=`: the body is the event's JSON data."""
    validate_topic(topic)
    # First of all: the CSRF check reads what is called a form, and leaves no body behind.
    body = request.body
    identity = await _writer(request)
    await require(identity.user, topic, "publish")
    event = await publish_body(topic, body, request.GET.get("type", DEFAULT_TYPE))
    return JsonResponse({"id": event.id}, status=201)


@answers_errors("GET")
async def history(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`GET /topics/<topic>/history?after=&limit=`: the kept events as NDJSON, oldest first."""
    validate_topic(topic)
    after = parse_position(request.GET.get("after", "0"))
    limit = after_and_limit(request)["limit"]
    identity = await _reader(request, [topic])
    try:
        response = await HistoryResponse.begin(identity, topic, after, limit)
    except HistoryGone as error:
        position = (await positions_now([topic]))[topic]
        return JsonResponse({"detail": str(error), "id": str(position)}, status=410)
    _admit_origin(request, response)
    return response


@answers_errors("GET", "POST")
async def topic(request: HttpRequest, topic: str) -> HttpResponseBase:
    """`/topics/<topic>/events`: reads by GET, publishes by POST."""
    view = topic_events if request.method == "GET" else publish_event
    return await view(request, topic)


@answers_errors("POST")
async def tickets(request: HttpRequest) -> HttpResponseBase:
    """`POST /realtime/tickets`: a single-use ticket for a URL, instead of the token itself."""
    identity = await _writer(request)
    if not identity.user.is_authenticated:
        raise NotIdentified("Sign in, or send an access token, to get a ticket.")
    ticket = await create_ticket(identity)
    return JsonResponse({"ticket": ticket, "expires_in": settings.TICKET_SECONDS}, status=201)


@answers_errors("GET", "HEAD")
async def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: the process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@answers_errors("GET", "HEAD")
async def readyz(request: HttpRequest) -> HttpResponse:
    """Ready for traffic: the log answers, the layer answers, the server is not draining."""
    if server_state(scope_of(request)).get("draining"):
        return problem(503, "This server is shutting down.")
    try:
        async with asyncio.timeout(READY_SECONDS):
            await get_event_log().heads(["realtime.ready"])  # without a name nothing would be asked
    except Exception as error:
        return problem(503, f"The event log does not answer: {type(error).__name__}.")
    try:
        layer = get_channel_layer(settings.CHANNEL_LAYER)
        if layer is not None:
            async with asyncio.timeout(READY_SECONDS):
                await layer.group_send("realtime.ready", {"type": "realtime.ready"})
    except Exception as error:
        return problem(503, f"The channel layer does not answer: {type(error).__name__}.")
    return HttpResponse("ready\n", content_type="text/plain")


async def signed_in(request: HttpRequest) -> Any:
    """Return the user of a request to a view of a site's own.

    Raises `NotIdentified` or `NotAllowed`.

    Checks the Origin of what reads and the CSRF token of what changes something, and refuses what
    another site made a browser ask for.
    """
    scope = scope_of(request)
    if request.method in ("GET", "HEAD"):
        foreign = request.headers.get("Sec-Fetch-Site") == "cross-site"
        if not origin_allowed(scope) or (foreign and "Origin" not in request.headers):
            raise NotAllowed("This origin is not allowed (ALLOWED_ORIGINS).")
        identity = await authenticate(scope)
    else:
        identity = await _writer(request)
    if not identity.user.is_authenticated:
        raise NotIdentified("Sign in, or send an access token.")
    return identity.user


topic_view = topic
tickets_view = tickets


async def _reader(request: HttpRequest, topics: list[str]) -> Identity:
    scope = scope_of(request)
    if not origin_allowed(scope):
        raise NotAllowed("This origin is not allowed (ALLOWED_ORIGINS).")
    identity = await authenticate(scope)
    for name in topics:
        await require(identity.user, name, "read")
    return identity


async def _writer(request: HttpRequest) -> Identity:
    identity = await authenticate(scope_of(request))
    if identity.source == "session":
        refusal = CsrfViewMiddleware(lambda _: HttpResponse()).process_view(
            request, _wants_csrf, (), {}
        )
        if refusal is not None:
            raise NotAllowed(
                "The CSRF token is missing or wrong: send the csrftoken cookie's value as "
                "X-CSRFToken, or use an access token."
            )
    return identity


def _wants_csrf(request: HttpRequest) -> HttpResponse:
    """Stands for a view without csrf_exempt."""
    return HttpResponse()


def _after(request: HttpRequest) -> str | None:
    # The header wins: a reconnecting EventSource sends it along with the URL it began with.
    return request.headers.get("Last-Event-ID") or request.GET.get("after")


async def _stream(
    request: HttpRequest,
    identity: Identity,
    topics: list[str],
    after: dict[str, Position],
    *,
    combined: bool,
) -> HttpResponseBase:
    if not request.accepts("text/event-stream"):
        accept = request.headers.get("Accept")
        return problem(406, f"This is text/event-stream, which {accept!r} leaves out.")
    # "From now on" means now, not when the body is first asked for: whoever sees the answer's
    # headers and then publishes has to get the event.
    live = [topic for topic in topics if topic not in after]
    after = {**after, **await positions_now(live)} if live else after
    response = TopicStreamResponse(scope_of(request), identity, topics, after, combined=combined)
    _admit_origin(request, response)
    return response


def _admit_origin(request: HttpRequest, response: HttpResponseBase) -> None:
    """Let the page read what it asked for; `_reader` has checked that it may."""
    response.headers["Vary"] = "Cookie, Authorization, Origin"
    if origin := request.headers.get("Origin"):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
