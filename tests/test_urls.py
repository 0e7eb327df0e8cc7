"""The package's URLs on a site where every view asks for a login (LoginRequiredMiddleware)."""

from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import include, path

from realtime.access.tokens import create_token
from realtime.http.requests import json_errors
from realtime.urls import urlpatterns as realtime_urlpatterns

from .support.clients import bearer

LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"
FOR_ANYBODY = {"healthz": 200, "readyz": 200, "ws": 426, "ws/topics/<topic>": 426}


@json_errors("GET")
async def own(request: HttpRequest) -> HttpResponse:
    """A view of the site's own, which asks nobody."""
    return HttpResponse("secret")


urlpatterns = [path("own", own), path("", include(realtime_urlpatterns))]

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db(transaction=True)]


def asked(where: str, topic: str, **headers: Any) -> list[int]:
    """The statuses of a GET and a POST."""
    client = Client(headers=headers)  # a new one: it keeps the middleware that it began with
    batch = [{"topic": topic, "data": 1}]
    posted = client.post(where, batch, "application/json")
    return [client.get(where).status_code, posted.status_code]


@pytest.mark.parametrize("url", [str(each.pattern) for each in realtime_urlpatterns])
def test_each_knows_its_users_itself_where_every_view_asks_for_a_login(url):
    alice = User.objects.create_user("alice", is_staff=True)
    topic = f"user.{alice.pk}"
    where = f"/{url.replace('<topic>', topic)}?topic={topic}"
    headers = bearer(create_token(alice)[0])
    nobodys, alices = asked(where, topic), asked(where, topic, **headers)
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, LOGIN_REQUIRED]):
        assert asked(where, topic) == nobodys
        assert asked(where, topic, **headers) == alices
    assert {*nobodys} <= {FOR_ANYBODY.get(url, 401), 405}
    assert {401, 403}.isdisjoint(alices)


def test_view_of_a_sites_own_is_opened_by_none_of_our_decorators():
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, LOGIN_REQUIRED]):
        assert Client().get("/own").status_code == 302
