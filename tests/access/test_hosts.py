"""`realtime.access.hosts`: as Django's HttpRequest has it."""

from typing import Any

import pytest
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.test import override_settings

from realtime.access.hosts import check_host, host_of, scheme_of
from realtime.exceptions import InvalidHost


def scope_of(*headers: tuple[str, str], scheme: str = "http") -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "scheme": scheme,
        "headers": [(name.encode(), value.encode("latin1")) for name, value in headers],
    }


HOST, FORWARDED = ("host", "www.example.com:8443"), ("x-forwarded-host", "other.example.com")
PROTO = ("x-forwarded-proto", "https")
SETTINGS: list[dict[str, Any]] = [
    {},
    {"USE_X_FORWARDED_HOST": True},
    {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")},
    {"ALLOWED_HOSTS": ["www.example.com"], "USE_X_FORWARDED_HOST": True},
    {"ALLOWED_HOSTS": [".example.com"]},
    {"ALLOWED_HOSTS": [], "DEBUG": True},
    {"ALLOWED_HOSTS": []},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        [HOST, PROTO],
        [HOST, ("x-forwarded-proto", "https, http")],
        [HOST, ("x-forwarded-proto", "http")],
        [HOST, ("x-forwarded-proto", "")],
        [HOST, FORWARDED],
        [HOST, FORWARDED, FORWARDED],
        [HOST, ("host", "evil.com")],
        [("host", "evil.com")],
        [("host", "example.com.evil.com")],
        [("host", "evil@www.example.com")],
        [("host", "www.example.com/")],
        [("host", "")],
        [("host", "127.0.0.1:8000")],
        [("host", "[::1]:8000")],
        [("host", "a.localhost")],
    ],
    ids=str,
)
def test_host_and_scheme_are_those_of_django(settings, headers):
    with override_settings(**settings):
        for scheme, socket in (("http", "ws"), ("https", "wss")):
            request = ASGIRequest(scope_of(*headers, scheme=scheme), None)
            assert scheme_of(scope_of(*headers, scheme=socket)) == request.scheme
            scope = scope_of(*headers)
            assert host_of(scope) == request._get_raw_host()
            try:
                request.get_host()
            except DisallowedHost:
                with pytest.raises(InvalidHost, match="ALLOWED_HOSTS"):
                    check_host(scope)
            else:
                check_host(scope)


def test_without_a_scheme_it_is_asgis_default():
    assert scheme_of({"headers": []}) == "http"


def test_harness_that_sends_no_host_is_let_in():
    check_host(scope_of())
