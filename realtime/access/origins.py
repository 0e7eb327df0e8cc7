"""The Origin of a WebSocket handshake or a cross-origin stream (RFC 6454, RFC 6455 section 10.2).

Browsers send cookies along with a WebSocket handshake from any site, and no CORS rule stops them:
without this check every page a user visits could open a socket in the user's name.
"""

from typing import Final

from django.http.request import split_domain_port

from ..conf import settings
from ..exceptions import NotAllowed
from ..utils.asgi import Scope, header
from .hosts import host_of, scheme_of
from .identity import EVERY_CREDENTIAL, Credential

DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
# What a page of any site can send: browsers add none of these by themselves.
EXPLICIT_CREDENTIALS: Final[frozenset[Credential]] = EVERY_CREDENTIAL - {"session"}


def check_origin(scope: Scope) -> frozenset[Credential]:
    """Return which credentials count for a request of the page that it comes from.

    All of them from this site, from an origin that ALLOWED_ORIGINS names, and from no browser; all
    but the session from an origin that only `*` lets in. Raises `NotAllowed` for any other.
    """
    if is_own_origin(scope):
        return EVERY_CREDENTIAL
    if "*" in settings.ALLOWED_ORIGINS:
        return EXPLICIT_CREDENTIALS
    sent, own = _split(header(scope, b"origin") or ""), _own(scope)
    if sent and own and sent[1] == own[1]:
        raise NotAllowed(
            f"This origin is not allowed: the request came by {scheme_of(scope)} here. Behind a "
            "proxy that ends TLS, serve with --proxy-headers or set SECURE_PROXY_SSL_HEADER."
        )
    raise NotAllowed("This origin is not allowed (ALLOWED_ORIGINS).")


def is_own_origin(scope: Scope) -> bool:
    """Return whether a request comes from this site, from an origin that is named, or no page."""
    origin = header(scope, b"origin")
    if origin is None:
        # Only browsers send it, with each WebSocket handshake and with what a page may read. What
        # a page makes them load, as an image, has none.
        return header(scope, b"sec-fetch-site") != "cross-site"
    if origin != "*" and origin in settings.ALLOWED_ORIGINS:
        return True
    own = _own(scope)
    return own is not None and _split(origin) == own


def cors_headers(scope: Scope) -> dict[str, str]:
    """Return what lets a page of this origin read the answer (Fetch standard, section 3.3.3).

    Empty where the request is of no page, or of one that may not read it.
    """
    origin = header(scope, b"origin")
    if origin is None:
        return {}
    if is_own_origin(scope):
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
        }
    return {"Access-Control-Allow-Origin": "*"} if "*" in settings.ALLOWED_ORIGINS else {}


def _own(scope: Scope) -> tuple[str, str] | None:
    """Return this site's scheme and host, as `_split` does."""
    host = host_of(scope) or ""
    return _split(f"{scheme_of(scope)}://{host}") if split_domain_port(host)[0] else None


def _split(origin: str) -> tuple[str, str] | None:
    """Return the scheme and the host with its port, which is left out where it is the default."""
    scheme, _, host = origin.lower().partition("://")
    if scheme not in DEFAULT_PORTS or not host:
        return None
    return scheme, host.removesuffix(DEFAULT_PORTS[scheme])
