"""The host and scheme a request was sent to, as Django reads them of an HttpRequest."""

from functools import lru_cache

from django.conf import settings as django_settings
from django.http.request import split_domain_port, validate_host

from ..exceptions import InvalidHost
from ..utils.asgi import Scope, header

LOCAL_HOSTS = (".localhost", "127.0.0.1", "[::1]")  # Django's, for DEBUG without ALLOWED_HOSTS


def host_of(scope: Scope) -> str | None:
    """Return the host, with its port unless that is the scheme's; None where none was sent."""
    if django_settings.USE_X_FORWARDED_HOST:
        forwarded = header(scope, b"x-forwarded-host")
        if forwarded is not None:
            return forwarded
    return header(scope, b"host")


def scheme_of(scope: Scope) -> str:
    """Return `https` or `http`, also for a WebSocket; SECURE_PROXY_SSL_HEADER decides."""
    if django_settings.SECURE_PROXY_SSL_HEADER:
        key, secure = django_settings.SECURE_PROXY_SSL_HEADER
        name = key.removeprefix("HTTP_").replace("_", "-").lower().encode()
        value = header(scope, name)
        if value is not None:
            return "https" if value.partition(",")[0].strip() == secure else "http"
    return "https" if scope.get("scheme") in ("https", "wss") else "http"


def is_host_allowed(host: str) -> bool:
    """Return whether ALLOWED_HOSTS has it."""
    allowed = tuple(django_settings.ALLOWED_HOSTS)
    return _is_allowed(host, allowed or (LOCAL_HOSTS if django_settings.DEBUG else ()))


def check_host(scope: Scope) -> None:
    """Raise `InvalidHost` for a host that Django would refuse; servers see to it that one comes."""
    host = host_of(scope)
    if host is not None and not is_host_allowed(host):
        raise InvalidHost(f"{host[:100]!r} is not a host of this site (ALLOWED_HOSTS).")


@lru_cache(maxsize=64)
def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
