"""`realtime.access.origins`: from which pages a browser may come."""

import pytest
from django.test import override_settings

from realtime.access.identity import EVERY_CREDENTIAL
from realtime.access.origins import EXPLICIT_CREDENTIALS, check_origin, cors_headers
from realtime.exceptions import NotAllowed


def scope_of(origin: str | None, host: str | None, scheme: str, **more: str) -> dict[str, object]:
    headers = [(b"accept", b"*/*")]
    sent = {"host": host, "origin": origin, **more}
    headers += [
        (name.replace("_", "-").encode(), value.encode("latin1"))
        for name, value in sent.items()
        if value is not None
    ]
    return {"headers": headers, "scheme": scheme}


def allowed(origin: str | None, host: str | None = "example.com", scheme: str = "https") -> bool:
    try:
        return check_origin(scope_of(origin, host, scheme)) == EVERY_CREDENTIAL
    except NotAllowed:
        return False


@pytest.mark.parametrize(
    ("scheme", "origin", "host"),
    [
        ("http", None, "example.com"),
        ("http", "http://example.com", "example.com"),
        ("ws", "http://example.com", "example.com"),
        ("https", "https://example.com", "example.com"),
        ("wss", "https://example.com", "example.com"),
        ("wss", "https://example.com", "example.com:443"),
        ("ws", "http://example.com", "example.com:80"),
        ("ws", "http://example.com:80", "example.com"),
        ("wss", "https://example.com:443", "example.com"),
        ("ws", "http://example.com:8000", "example.com:8000"),
        ("wss", "https://EXAMPLE.com", "example.COM"),
        ("wss", "HTTPS://example.com", "example.com"),
        ("ws", "http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("ws", "http://[::1]:8000", "[::1]:8000"),
        ("ws", "http://[::1]", "[::1]"),
        ("wss", "https://[2001:DB8::1]", "[2001:db8::1]:443"),
        ("wss", "https://xn--lu-0wa9h.example", "xn--lu-0wa9h.example"),
    ],
)
def test_the_same_site(scheme, origin, host):
    assert allowed(origin, host, scheme) is True


@pytest.mark.parametrize("scheme", ["wss", "ws"])
@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.com", "example.com"),
        ("https://example.com.evil.com", "example.com"),
        ("https://evilexample.com", "example.com"),
        ("https://sub.example.com", "example.com"),
        ("https://example.com", "sub.example.com"),
        ("https://example.com:8443", "example.com"),
        ("https://example.com", "example.com:8443"),
        ("http://example.com", "example.com:443"),
        ("https://example.com", "example.com:80"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://localhost:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::2]:8000"),
        ("null", "example.com"),
        ("", "example.com"),
        ("", ""),
        ("null", "null"),
        ("example.com", "example.com"),
        ("//example.com", "example.com"),
        ("ws://example.com", "example.com"),
        ("wss://example.com", "example.com"),
        ("ftp://example.com", "example.com"),
        ("file://", ""),
        ("https://", ""),
        ("https://:443", ":443"),
        ("https://example.com:x", "example.com"),
        ("https://example.com:99999", "example.com"),
        ("https://[::1", "[::1"),
        ("https://example.com@evil.com", "example.com"),
        ("https://evil@example.com", "example.com"),
        ("http://evil@example.com", "example.com"),
        ("https://evil@example.com", "evil@example.com"),
        ("http://example.com/", "example.com"),
        ("https://example.com/", "example.com"),
        ("https://example.com?", "example.com"),
        ("https://exa\tmple.com", "example.com"),
        ("https://example.com", ""),
        ("https://example.com", None),
        ("https://\xe9xample.com", "example.com"),
    ],
)
def test_another_site(scheme, origin, host):
    assert allowed(origin, host, scheme) is False


@pytest.mark.parametrize(
    ("scheme", "origin"), [("wss", "http://example.com"), ("ws", "https://example.com")]
)
def test_page_of_another_scheme_is_another_site_and_the_refusal_says_what_to_set(scheme, origin):
    with pytest.raises(NotAllowed, match="--proxy-headers"):
        check_origin(scope_of(origin, "example.com", scheme))


def test_header_of_a_trusted_proxy_says_the_scheme():
    settings = {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}
    page = ("https://example.com", "example.com")
    with override_settings(**settings):
        assert check_origin(scope_of(*page, "ws", x_forwarded_proto="https"))
        with pytest.raises(NotAllowed):
            check_origin(scope_of(*page, "wss", x_forwarded_proto="http"))


def test_header_of_a_trusted_proxy_says_the_host():
    scope = scope_of("https://example.com", "10.0.0.1", "wss", x_forwarded_host="example.com")
    with pytest.raises(NotAllowed):
        check_origin(scope)
    with override_settings(USE_X_FORWARDED_HOST=True):
        assert check_origin(scope)


def test_what_another_site_makes_a_browser_load_has_no_origin_and_is_refused():
    for site in ("same-origin", "same-site", "none"):
        assert check_origin(scope_of(None, "example.com", "https", sec_fetch_site=site))
    with pytest.raises(NotAllowed):
        check_origin(scope_of(None, "example.com", "https", sec_fetch_site="cross-site"))


@pytest.mark.parametrize(
    ("setting", "origin", "session"),
    [
        (["*"], "https://evil.com", False),
        (["*"], "http://example.com", False),
        (["*"], "null", False),
        (["*"], "*", False),
        (["*"], "https://example.com", True),
        (["*"], None, True),
        (["*", "https://app.example.com"], "https://app.example.com", True),
    ],
)
def test_session_does_not_count_where_any_origin_is_let_in(setting, origin, session):
    with override_settings(REALTIME={"ALLOWED_ORIGINS": setting}):
        credentials = check_origin(scope_of(origin, "example.com", "https"))
    assert credentials == (EVERY_CREDENTIAL if session else EXPLICIT_CREDENTIALS)
    assert ("session" in credentials) is session


@pytest.mark.parametrize(
    ("setting", "origin", "expected"),
    [
        (["https://app.example.com"], "https://app.example.com", True),
        (["https://a.com", "https://app.example.com"], "https://app.example.com", True),
        (("https://app.example.com",), "https://app.example.com", True),
        (["https://app.example.com"], "http://app.example.com", False),
        (["https://app.example.com"], "https://app.example.com:8443", False),
        (["https://app.example.com"], "https://app.example.com.evil.com", False),
        (["https://app.example.com"], "https://example.com", True),
        (["http://localhost:3000"], "http://localhost:3000", True),
        (["null"], "null", True),
        ([], "https://app.example.com", False),
    ],
)
def test_allowed_origins(setting, origin, expected):
    with override_settings(REALTIME={"ALLOWED_ORIGINS": setting}):
        assert allowed(origin) is expected


@pytest.mark.parametrize(
    ("origins", "origin", "expected"),
    [
        ([], None, {}),
        ([], "https://example.com", {"Origin": "https://example.com", "Credentials": "true"}),
        ([], "https://evil.com", {}),
        (["https://a.com"], "https://a.com", {"Origin": "https://a.com", "Credentials": "true"}),
        (["https://a.com"], "https://evil.com", {}),
        (["*"], "https://evil.com", {"Origin": "*"}),
        (["*"], "https://example.com", {"Origin": "https://example.com", "Credentials": "true"}),
    ],
)
def test_what_a_page_may_read(origins, origin, expected):
    with override_settings(REALTIME={"ALLOWED_ORIGINS": origins}):
        found = cors_headers(scope_of(origin, "example.com", "https"))
    assert found == {f"Access-Control-Allow-{name}": value for name, value in expected.items()}
