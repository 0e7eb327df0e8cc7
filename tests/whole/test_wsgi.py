"""Under WSGI, as in Django's test client: what can work does, and a stream says why it can't."""

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from realtime.access.tokens import create_token

from ..support.clients import bearer
from ..support.layers import RecordingLayer, data_sent, layer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice")


def test_event_is_published_and_announced(client: Client, alice: User) -> None:
    headers = bearer(create_token(alice)[0])
    with layer(RecordingLayer):
        answer = client.post(
            "/topics/room.a/events", {"n": 1}, content_type="application/json", headers=headers
        )
    assert answer.status_code == 201, answer.content
    assert data_sent() == ['{"n":1}']


def test_session_needs_its_csrf_token(alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    answer = client.post("/topics/room.a/events", "1", content_type="application/json")
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("The CSRF token is missing")


def test_history_is_whole(client: Client, alice: User) -> None:
    client.force_login(alice)
    for n in range(3):
        client.post("/topics/room.a/events", str(n), content_type="application/json")
    answer = client.get("/topics/room.a/history?limit=2")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["data"] for line in answer.content.splitlines()] == [0, 1]


@pytest.mark.parametrize("path", ["/topics/room.a/events", "/events?topic=room.a"])
def test_stream_says_what_to_do(client: Client, alice: User, path: str) -> None:
    client.force_login(alice)
    answer = client.get(path)
    assert answer.status_code == 501
    assert "manage.py serve" in answer.json()["detail"]
    assert "realtime.testing.event_stream" in answer.json()["detail"]


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 200)])
def test_health_is_answered(client: Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_ticket_is_given(client: Client, alice: User) -> None:
    client.force_login(alice)
    assert client.post("/realtime/tickets").status_code == 201
