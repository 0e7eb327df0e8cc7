"""`project.loopback`: cookies without TLS stay on this machine."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from project.loopback import plain_cookies


def view(request: HttpRequest) -> HttpResponse:
    response = HttpResponse()
    response.set_cookie("sessionid", "x", secure=True, httponly=True)
    return response


async def async_view(request: HttpRequest) -> HttpResponse:
    return view(request)


@pytest.mark.parametrize("get_response", [view, async_view])
@pytest.mark.parametrize(
    ("host", "by_tls", "is_secure"),
    [
        ("localhost", False, False),
        ("localhost:8000", False, False),
        ("127.0.0.1:8000", False, False),
        ("[::1]:8000", False, False),
        ("localhost", True, True),
        ("www.example.com", False, True),
        ("localhost.example.com", False, True),
        ("10.0.0.1:8000", False, True),
        ("", False, True),
    ],
)
def test_cookies_are_plain_on_the_loopback_alone(
    get_response: Callable[..., Any], host: str, by_tls: bool, is_secure: bool
) -> None:
    request = RequestFactory().get("/", secure=by_tls, headers={"Host": host})
    answer = plain_cookies(get_response)
    if get_response is async_view:
        answer = async_to_sync(answer)
    cookie = answer(request).cookies["sessionid"]
    assert bool(cookie["secure"]) is is_secure
    assert cookie["httponly"]
