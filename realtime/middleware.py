"""Django's own middleware without a thread hop per class and request.

Under ASGI, Django runs each `process_request`, `process_view` and `process_response` in a thread:
a dozen hops for a request whose middleware mostly reads headers. These subclasses call them in
the event loop where they do no input or output, and in a thread where they may: when a session has
to be saved, or a form to be parsed. List them in MIDDLEWARE in place of Django's; what they do is
the same.
"""

from contextlib import suppress
from functools import partial
from typing import Any, Final

from asgiref.sync import (
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
)
from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.messages.storage import default_storage
from django.contrib.messages.storage.base import BaseStorage
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware import clickjacking, common, csrf, security
from django.urls import Resolver404, resolve
from django.utils.functional import SimpleLazyObject

from .http.health import healthz, readyz

HEALTH_PATHS: Final = ("healthz", "readyz")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")


class InlineMixin:
    """Calls a `MiddlewareMixin`'s methods in the event loop unless they may block."""

    get_response: Any  # MiddlewareMixin has it

    def request_blocks(self, request: HttpRequest) -> bool:
        """Return whether `process_request` may do input or output."""
        return False

    def response_blocks(self, request: HttpRequest, response: HttpResponseBase) -> bool:
        """Return whether `process_response` may do input or output."""
        return False

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        process_request = getattr(self, "process_request", None)
        process_response = getattr(self, "process_response", None)
        response: HttpResponseBase | None = None
        if process_request is not None:
            if self.request_blocks(request):
                response = await sync_to_async(process_request)(request)
            else:
                response = process_request(request)
        if response is None:
            response = await self.get_response(request)
        assert response is not None
        if process_response is not None:
            if self.response_blocks(request, response):
                response = await sync_to_async(process_response)(request, response)
            else:
                response = process_response(request, response)
        return response


class HealthMiddleware:
    """Answers `/healthz` and `/readyz` before all that asks for more: put it first.

    A load balancer gives an address as Host, which is none of ALLOWED_HOSTS, and comes without
    TLS, whatever SECURE_SSL_REDIRECT says.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        view = self._find_view(request) or self.get_response
        if not self._is_async and iscoroutinefunction(view):
            return async_to_sync(view)(request)
        return view(request)

    def _find_view(self, request: HttpRequest) -> Any:
        if not request.path_info.endswith(HEALTH_PATHS):
            return None
        with suppress(Resolver404):
            match = resolve(request.path_info)
            return match.func if match.func in (healthz, readyz) else None
        return None


class SecurityMiddleware(InlineMixin, security.SecurityMiddleware):
    """Run inline: it reads headers alone."""


class CommonMiddleware(InlineMixin, common.CommonMiddleware):
    """Run inline: it reads headers and URLs alone."""


class XFrameOptionsMiddleware(InlineMixin, clickjacking.XFrameOptionsMiddleware):
    """Run inline: it sets a header alone."""


class SessionMiddleware(InlineMixin, sessions.SessionMiddleware):
    """Load nothing until the session is read; use a thread only to save one."""

    def response_blocks(self, request: HttpRequest, response: HttpResponseBase) -> bool:
        session = getattr(request, "session", None)
        is_changed = session is not None and session.modified
        return is_changed or settings.SESSION_SAVE_EVERY_REQUEST


class AuthenticationMiddleware(InlineMixin, auth.AuthenticationMiddleware):
    """Run inline: `request.user` is loaded when it is first used, as in Django."""


class MessageMiddleware(InlineMixin, messages.MessageMiddleware):
    """Make the storage when it is first used; use a thread only where messages were.

    Django makes it for every request, a tenth of the time of one that opens a stream.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Give the request a storage that is made when it is first used."""
        vars(request)["_messages"] = SimpleLazyObject(partial(_make_storage, request))

    def process_response(  # type: ignore[override]
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Store the messages, if the request has used them."""
        if type(getattr(request, "_messages", None)) is SimpleLazyObject:
            return response
        return super().process_response(request, response)  # type: ignore[arg-type]

    def response_blocks(self, request: HttpRequest, response: HttpResponseBase) -> bool:
        storage = getattr(request, "_messages", None)
        if storage is None or type(storage) is SimpleLazyObject:
            return False
        return bool(storage.used or storage.added_new)


def _make_storage(request: HttpRequest) -> BaseStorage:
    storage: BaseStorage = default_storage(request)
    vars(request)["_messages"] = storage  # in the place of what stood for it
    return storage


class CsrfViewMiddleware(InlineMixin, csrf.CsrfViewMiddleware):
    """Use a thread only where the secret is in the session or the token in a form."""

    def request_blocks(self, request: HttpRequest) -> bool:
        return settings.CSRF_USE_SESSIONS

    def response_blocks(self, request: HttpRequest, response: HttpResponseBase) -> bool:
        return settings.CSRF_USE_SESSIONS

    async def process_view(  # type: ignore[override]
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> HttpResponseBase | None:
        """Check the token, in a thread where it may stand in a form."""
        # A coroutine function, which Django awaits: any other goes through a thread.
        check = super().process_view
        if getattr(callback, "csrf_exempt", False) or request.method in _SAFE_METHODS:
            return check(request, callback, callback_args, callback_kwargs)
        return await sync_to_async(check)(request, callback, callback_args, callback_kwargs)
