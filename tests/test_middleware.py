"""Django's middleware, inline: the same answers, and threads only where something may block."""

from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from realtime import middleware

NAMES = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
OURS = [f"realtime.middleware.{name.rpartition('.')[2]}" for name in NAMES]


async def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


async def count(request: HttpRequest) -> HttpResponse:
    visits = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visits)
    return HttpResponse(str(visits))


async def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await request.auser()).get_username())


async def say(request: HttpRequest) -> HttpResponse:
    messages.info(request, request.GET["text"])
    return HttpResponse("said")


async def heard(request: HttpRequest) -> HttpResponse:
    return HttpResponse(" ".join(str(message) for message in messages.get_messages(request)))


urlpatterns = [
    path("plain/", plain),
    path("say/", say),
    path("heard/", heard),
    path("exempt/", csrf_exempt(plain)),
    path("count/", count),
    path("who/", who),
    path("sub/", include("realtime.urls")),
]

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db(transaction=True)]


@pytest.fixture(params=[NAMES, OURS], ids=["django", "ours"])
def both(request: pytest.FixtureRequest) -> Any:
    """What has to be the same with Django's own and with ours."""
    with override_settings(MIDDLEWARE=request.param):
        yield


@pytest.fixture
def ours() -> Any:
    with override_settings(MIDDLEWARE=OURS):
        yield


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that middleware had called in a thread."""
    called: list[str] = []
    original = SyncToAsync.__call__

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self.func, "__qualname__", repr(self.func))
        if "Middleware" in name:
            called.append(name)
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", call)
    return called


async def test_headers(both: None) -> None:
    answer = await AsyncClient().get("/plain/")
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == "5"


async def test_append_slash(both: None) -> None:
    answer = await AsyncClient().get("/plain")
    assert (answer.status_code, answer.headers["Location"]) == (301, "/plain/")


async def test_a_session_is_saved(both: None) -> None:
    client = AsyncClient()
    assert [(await client.get("/count/")).content for _ in range(3)] == [b"1", b"2", b"3"]


async def test_the_user_of_a_session(both: None) -> None:
    client = AsyncClient()
    await client.aforce_login(await User.objects.acreate(username="alice"))
    assert (await client.get("/who/")).content == b"alice"


@pytest.mark.parametrize("in_session", [False, True])
async def test_csrf(both: None, in_session: bool) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    with override_settings(CSRF_USE_SESSIONS=in_session):
        assert (await client.post("/plain/")).status_code == 403
        assert (await client.post("/exempt/")).status_code == 200
        token = "a" * 32
        if not in_session:
            client.cookies["csrftoken"] = token
            assert (await client.post("/plain/", {"csrfmiddlewaretoken": token})).status_code == 200
            wrong = {"csrfmiddlewaretoken": "b" * 32}
            assert (await client.post("/plain/", wrong)).status_code == 403


async def test_messages_are_kept_until_they_are_read(both: None) -> None:
    client = AsyncClient()
    for text in ("one", "two"):
        await client.get("/say/", {"text": text})
    await client.get("/plain/")
    assert [(await client.get("/heard/")).content for _ in range(2)] == [b"one two", b""]


async def test_no_storage_is_made_for_messages_that_nobody_asks_for(
    ours: None, monkeypatch: Any
) -> None:
    made = []
    make = middleware.default_storage

    def default_storage(request: HttpRequest) -> Any:
        made.append(request.path)
        return make(request)

    monkeypatch.setattr(middleware, "default_storage", default_storage)
    client = AsyncClient()
    for url in ("/plain/", "/say/?text=one", "/heard/"):
        await client.get(url)
    assert made == ["/say/", "/heard/"]


@pytest.mark.parametrize("url", ["/plain/", "/exempt/"])
async def test_no_thread_for_looking_at_headers(ours: None, hops: list[str], url: str) -> None:
    method = AsyncClient().post if "exempt" in url else AsyncClient().get
    assert (await method(url)).status_code == 200
    assert hops == []


async def test_a_saved_session_costs_one_thread_hop(ours: None, hops: list[str]) -> None:
    await AsyncClient().get("/count/")
    assert [name.rpartition(".")[2] for name in hops] == ["process_response"]


async def test_a_form_with_a_csrf_token_costs_one_thread_hop(ours: None, hops: list[str]) -> None:
    await AsyncClient(enforce_csrf_checks=True).post("/plain/", {"a": 1})
    assert [name.rpartition(".")[2] for name in hops] == ["process_view"]


def test_each_is_djangos_own() -> None:
    for name in OURS:
        ours = getattr(middleware, name.rpartition(".")[2])
        assert any(base.__module__.startswith("django.") for base in ours.__mro__[1:3])


@override_settings(
    MIDDLEWARE=["realtime.middleware.HealthMiddleware", *NAMES],
    ALLOWED_HOSTS=["www.example.com"],
    SECURE_SSL_REDIRECT=True,
)
async def test_health_is_answered_for_any_host_and_without_tls():
    headers = {"Host": "10.0.0.7:8000"}
    for name in ("healthz", "readyz"):
        answer = await AsyncClient().get(f"/sub/{name}", headers=headers)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
        answer = await sync_to_async(Client().get)(f"/sub/{name}", headers=headers)
        assert answer.status_code == 200
        assert (await AsyncClient().get(f"/{name}", headers=headers)).status_code in (301, 400)
    assert (await AsyncClient().get("/plain/", headers=headers)).status_code in (301, 400)
