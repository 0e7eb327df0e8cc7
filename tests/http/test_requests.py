"""What the views ask of their requests, without a server."""

import json
import threading
import time
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, override_settings

from realtime.access.identity import Identity
from realtime.access.tokens import create_token
from realtime.exceptions import (
    DatabaseUnavailable,
    DataTooLarge,
    NotAllowed,
    NotIdentified,
    OutcomeUnknown,
)
from realtime.http import requests
from realtime.http.requests import (
    accepts_event_stream,
    json_errors,
    publish_body,
    require_user,
)
from realtime.limits.client import NOBODY
from realtime.limits.publishing import max_body_bytes

from ..support.clients import bearer

FOREIGN = {"Origin": "https://evil.example.com"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}


FORM = "application/x-www-form-urlencoded"
TOKEN = "a" * 32


@pytest.fixture
def by_session(monkeypatch):
    """A user whom each request has by its session."""
    user = User(username="alice")

    async def authenticate(scope: Any, *credentials: Any) -> Identity:
        return Identity(user, "session")

    monkeypatch.setattr(requests, "authenticate", authenticate)
    return user


@pytest.fixture
def parsed(monkeypatch):
    """The threads in which forms were parsed."""
    threads = []
    load = ASGIRequest._load_post_and_files

    def loaded(self: Any) -> None:
        threads.append(threading.current_thread())
        load(self)

    monkeypatch.setattr(ASGIRequest, "_load_post_and_files", loaded)
    return threads


def posted(body: str, content_type: str, **headers: str) -> HttpRequest:
    factory = AsyncRequestFactory()
    factory.cookies["csrftoken"] = TOKEN
    return factory.generic("POST", "/", body, content_type, headers=headers)


def request(method: str = "GET", **headers: str) -> HttpRequest:
    return AsyncRequestFactory().generic(method, "/", headers=headers)


async def answer(error: Exception, method: str = "GET", **headers: str) -> HttpResponse:
    @json_errors("GET", "HEAD")
    async def view(request: HttpRequest) -> HttpResponse:
        raise error

    response = await view(request(method, **headers))
    assert isinstance(response, HttpResponse)
    return response


@pytest.mark.parametrize(
    ("error", "status", "code", "headers"),
    [
        (NotIdentified("Sign in."), 401, "not_identified", {"WWW-Authenticate": "Bearer"}),
        (NotAllowed("Not yours."), 403, "not_allowed", {}),
        (RequestDataTooBig("Too big."), 413, "too_large", {}),
        (DatabaseUnavailable(), 503, "unavailable", {"Retry-After": "2"}),
        (OutcomeUnknown(), 503, "unknown", {}),
    ],
)
async def test_error_is_answered_with_its_status_code_and_sentence(error, status, code, headers):
    response = await answer(error)
    assert response.status_code == status
    assert json.loads(response.content) == {"code": code, "detail": str(error)}
    assert {name: response.headers[name] for name in headers} == headers


@pytest.mark.parametrize("error", [OperationalError("at 10.0.0.7"), InterfaceError("closed")])
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
async def test_database_that_is_away_is_answered_with_when_to_come_back(error, accept):
    response = await answer(error, Accept=accept)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert str(error) not in response.text


async def test_event_source_comes_back_when_the_database_does():
    retries = set()
    for _ in range(20):
        response = await answer(OperationalError("gone"), Accept="text/event-stream")
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        name, _, milliseconds = response.text.strip().partition(": ")
        assert name == "retry"
        retries.add(int(milliseconds))
    assert len(retries) > 1, "not all at once"
    assert all(2_000 <= retry <= 6_000 for retry in retries)
    response = await answer(NotAllowed("Not yours."), Accept="text/event-stream")
    assert response.status_code == 403


async def test_wrong_method_is_answered_with_those_that_are_right():
    response = await answer(AssertionError("called"), "POST")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


async def test_error_of_another_kind_stays_the_sites():
    with pytest.raises(ZeroDivisionError):
        await answer(ZeroDivisionError())


@pytest.mark.parametrize("headers", [FOREIGN, CROSS_SITE])
async def test_request_that_another_site_has_made_has_no_user(headers):
    with pytest.raises(NotAllowed, match="origin"):
        await require_user(request(**headers))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_request_without_a_credential_has_no_user(method):
    with pytest.raises(NotIdentified, match="Sign in"):
        await require_user(request(method))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_request_with_a_token_has_its_user(method, django_user_model):
    alice = await django_user_model.objects.acreate_user("alice")
    token, _ = await sync_to_async(create_token)(alice)
    assert await require_user(request(method, **bearer(token))) == alice


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", FORM])
async def test_form_with_a_csrf_token_is_parsed_in_a_thread(by_session, parsed, content_type):
    """The longest that is let in is one turn of the loop otherwise: 9 ms for 1 MB of base64."""
    form = "csrfmiddlewaretoken=" + TOKEN
    if content_type != FORM:
        name = 'Content-Disposition: form-data; name="csrfmiddlewaretoken"'
        form = f"--x\r\n{name}\r\n\r\n{TOKEN}\r\n--x--\r\n"
    sent = posted(form, content_type)
    assert await require_user(sent) is by_session
    (thread,) = parsed
    assert thread is not threading.current_thread()
    with pytest.raises(NotAllowed, match="CSRF"):
        await require_user(posted(form.replace(TOKEN, "b" * 32), content_type))


@pytest.mark.parametrize("body", ["", "{}"])
async def test_csrf_token_in_a_header_costs_no_thread(by_session, monkeypatch, body):
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("in a thread")

    monkeypatch.setattr(SyncToAsync, "__call__", call)
    sent = posted(body, "application/json", **{"X-CSRFToken": TOKEN})
    assert await require_user(sent) is by_session
    with pytest.raises(NotAllowed, match="CSRF"):
        await require_user(posted(body, "application/json"))


@override_settings(REALTIME={"MAX_EVENT_BYTES": 100})
async def test_body_that_can_not_be_an_event_is_not_parsed():
    body = b" " * max_body_bytes() + b"1"  # as JSON it would be short
    with pytest.raises(DataTooLarge, match="600 bytes"):
        await publish_body(NOBODY, "room.a", body, "message", None, None)


@pytest.mark.parametrize(
    "accept",
    [
        *("text/event-stream", "Text/Event-Stream", "text/*", "*/*", "a/b, text/event-stream"),
        *(
            "text/html, */*;q=0.1",
            "text/event-stream;q=0, */*",
            "text/event-stream ; q=1",
            "",
            "a/b",
        ),
        *("text/event-stream;q=0", "*/*;q=0.0", "text", "application/*", ",,", "*/*;q=2"),
    ],
)
def test_accept_is_read_as_django_reads_it(accept: str) -> None:
    asked = request(Accept=accept)
    assert accepts_event_stream(asked) == asked.accepts("text/event-stream")


def test_long_accept_is_read_in_little_time() -> None:
    for each in ("a/b;q=0.1,", "*/*;q=0,"):
        asked = request(Accept=each * (65_536 // len(each)))
        assert min(seconds_of_accepting(asked) for _ in range(3)) < 0.02


def seconds_of_accepting(asked: HttpRequest) -> float:
    """Of this thread's own time."""
    began = time.thread_time()
    assert not accepts_event_stream(asked)
    return time.thread_time() - began
