"""`realtime.access.origins`: from which pages a browser may come."""

import pytest
from django.test import override_settings

from realtime.access.origins import origin_allowed


def allowed(origin: str | None, host: str | None = "example.com") -> bool:
    headers = [(b"accept", b"*/*")]
    if host is not None:
        headers.append((b"host", host.encode("latin1")))
    if origin is not None:
        headers.append((b"origin", origin.encode("latin1")))
    return origin_allowed({"headers": headers})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.com"),
        ("http://example.com", "example.com"),
        ("https://example.com", "example.com"),
        # A proxy that ends TLS: the scheme says nothing, host and port decide.
        ("https://example.com", "example.com:443"),
        ("http://example.com", "example.com:80"),
        ("http://example.com:80", "example.com"),
        ("https://example.com:443", "example.com"),
        ("http://example.com:8000", "example.com:8000"),
        ("https://EXAMPLE.com", "example.COM"),
        ("HTTPS://example.com", "example.com"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]", "[::1]"),
        ("https://[2001:DB8::1]", "[2001:db8::1]:443"),
        ("https://xn--lu-0wa9h.example", "xn--lu-0wa9h.example"),
    ],
)
def test_the_same_site(origin, host):
    assert allowed(origin, host) is True


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
        ("ftp://example.com", "example.com"),
        ("file://", ""),
        ("https://", ""),
        ("https://:443", ":443"),
        ("https://example.com:x", "example.com"),
        ("https://example.com:99999", "example.com"),
        ("https://[::1", "[::1"),
        ("https://example.com@evil.com", "example.com"),
        ("https://example.com", ""),
        ("https://example.com", None),
        ("https://\xe9xample.com", "example.com"),
    ],
)
def test_another_site(origin, host):
    assert allowed(origin, host) is False


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
        (["*"], "https://evil.com", True),
        (["*"], "null", True),
        ([], "https://app.example.com", False),
    ],
)
def test_allowed_origins(setting, origin, expected):
    with override_settings(REALTIME={"ALLOWED_ORIGINS": setting}):
        assert allowed(origin) is expected
