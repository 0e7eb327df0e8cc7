"""This machine's own names: what is sent to them crosses no wire, and needs no TLS."""

from asyncio import iscoroutinefunction
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import cast

from django.http import HttpRequest, HttpResponseBase
from django.http.request import split_domain_port
from django.utils.decorators import sync_and_async_middleware

View = Callable[[HttpRequest], HttpResponseBase]
AsyncView = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@sync_and_async_middleware
def plain_cookies(get_response: View | AsyncView) -> View | AsyncView:
    """Take `Secure` off the cookies of a page that was asked for by `http://localhost`.

    No browser but Chrome and Firefox would keep them, and a script none at all. (The loopback is
    potentially trustworthy: W3C Secure Contexts, section 3.1.)
    """

    def with_plain_cookies(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if response.cookies and not request.is_secure():
            host, _ = split_domain_port(request.META.get("HTTP_HOST", ""))
            for cookie in response.cookies.values() if is_loopback(host) else ():
                cookie["secure"] = ""
        return response

    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponseBase:
            return with_plain_cookies(request, await get_response(request))

        return answer
    view = cast(View, get_response)
    return lambda request: with_plain_cookies(request, view(request))
