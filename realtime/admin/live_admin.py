"""The live page of Django's admin: processes, topics with readers, a user's connections, a tail."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from copy import copy
from datetime import tzinfo
from functools import cached_property
from typing import Any, Final

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils import timezone, translation
from django.utils.functional import cached_property as django_cached_property
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _

from ..access.signals import disconnect_user
from ..conf import settings
from ..events.topic import validate_topic
from ..exceptions import InvalidTopic, NotAllowed, NotIdentified
from ..http.requests import IDENTITY, json_errors, reader
from ..models import Process
from ..streaming.response import EventStreamResponse
from ..streaming.sse import encode_sse
from ..utils.asgi import scope_of
from ..utils.threads import DATABASE
from .admin_pages import ReadOnlyAdmin
from .snapshot import Snapshot, complete, load

VIEW: Final = "realtime.view_live"
VIEW_ADDRESS: Final = "realtime.view_address"
DISCONNECT: Final = "realtime.disconnect_user"
REFRESH_SECONDS: Final = 2.0  # where no process beats
MOST_SEARCHED: Final = 254  # characters of a name: what a longer one is cut to


@admin.register(Process)
class ProcessAdmin(ReadOnlyAdmin):
    """One page in the place of a list, with permissions of its own."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(VIEW)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        events = json_errors("GET")(self.events_view)
        return [
            path("", wrap(self.changelist_view), name="realtime_process_changelist"),
            path("events/", events, name="realtime_process_events"),
            path("disconnect/", wrap(self.disconnect_view), name="realtime_process_disconnect"),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show how it is now; a script keeps that up to date."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        username, topic = _asked(request, "user"), _asked(request, "topic")
        shown = load(username)
        async_to_sync(complete)(shown)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Live"),
            "opts": self.opts,
            "username": username,
            "topic": topic,
            "events_url": f"{self._url('events')}?{urlencode({'user': username})}",
            "disconnect_url": self._url("disconnect"),
            **_topic_urls(topic),
            **self._tables(request, shown),
        }
        return TemplateResponse(request, "realtime/admin/live.html", context)

    async def events_view(self, request: HttpRequest) -> HttpResponseBase:
        """Stream the page's tables, whenever they have changed."""
        identity = await reader(request, [])
        if identity.source != "session":  # a token may be worth less than its user
            raise NotIdentified("Sign in to the admin.")

        def check() -> dict[str, Any] | None:
            # The request's own user: middleware may have set what `has_permission` asks for.
            if request.user.pk != identity.user.pk:
                request.user = identity.user  # type: ignore[assignment]
            added = _added(request.user)
            return added if self._may_view(request) else None

        if (added := await DATABASE.run_twice(check)) is None:
            raise NotAllowed("You may not see the live page.")
        scope_of(request)[IDENTITY] = identity  # the stream ends when the user is signed out
        zone = await sync_to_async(timezone.get_current_timezone)()  # it may read a file
        return EventStreamResponse(self._snapshots(request, zone, added))

    def disconnect_view(self, request: HttpRequest) -> HttpResponse:
        """End the live connections of a user."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not (self.has_view_permission(request) and request.user.has_perm(DISCONNECT)):
            raise PermissionDenied
        try:
            user = _find_user(request.POST.get("user"))
        except (ValueError, ValidationError):
            user = None
        if user is None:
            self.message_user(request, _("There is no such user."), messages.ERROR)
            return HttpResponseRedirect(self._url("changelist"))
        disconnect_user(user)
        self.log_change(request, user, "Ended all live connections.")
        said = _("Ended the live connections of “%(user)s”.") % {"user": user.get_username()}
        self.message_user(request, said, messages.SUCCESS)
        where = urlencode({"user": user.get_username()})
        return HttpResponseRedirect(f"{self._url('changelist')}?{where}")

    def _url(self, name: str) -> str:
        return reverse(f"{self.admin_site.name}:realtime_process_{name}")

    def _may_view(self, request: HttpRequest) -> bool:
        return self.admin_site.has_permission(request) and self.has_view_permission(request)

    def _tables(self, request: HttpRequest, shown: Snapshot) -> dict[str, Any]:
        return {
            "shown": shown,
            "may_see_addresses": request.user.has_perm(VIEW_ADDRESS),
            "may_disconnect": request.user.has_perm(DISCONNECT),
        }

    async def _snapshots(
        self, request: HttpRequest, zone: tzinfo, added: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        username = _asked(request, "user")
        language = translation.get_language()

        def find() -> Snapshot | None:
            # Looked up anew: a permission that is taken away ends no connection by itself.
            user = _find_user(request.user.pk)
            if user is not None:
                for name, value in added.items():
                    vars(user).setdefault(name, value)  # not over what was just looked up
                request.user = user
            return load(username) if user is not None and self._may_view(request) else None

        def render(shown: Snapshot) -> str:
            with translation.override(language), timezone.override(zone):
                context = {**self._tables(request, shown), "username": username}
                return render_to_string("realtime/admin/live_tables.html", context)

        last = None
        while True:
            try:
                shown = await DATABASE.run_twice(find)
                if shown is None:
                    return
                await complete(shown)
                tables = await DATABASE.run_twice(render, shown)
            except (InterfaceError, OperationalError):
                return  # the page comes back
            if tables != last:
                last = tables
                yield encode_sse(data=json.dumps(tables))
            await asyncio.sleep(settings.PROCESS_BEAT_SECONDS or REFRESH_SECONDS)


def _find_user(pk: Any) -> Any:
    return get_user_model()._default_manager.filter(pk=pk).first()


def _added(user: Any) -> dict[str, Any]:
    """Return what middleware has set on a user, as whether a second factor was shown."""
    own = copy(user)  # the user itself, where this one is lazy
    # Neither a column nor what is remembered, as permissions are.
    columns = {field.attname for field in own._meta.concrete_fields}
    return {
        name: value
        for name, value in vars(own).items()
        if not name.startswith("_")
        and name not in columns
        and not isinstance(getattr(type(own), name, None), cached_property | django_cached_property)
    }


def _asked(request: HttpRequest, name: str) -> str:
    return str(request.GET.get(name, "")).strip()[:MOST_SEARCHED]


def _topic_urls(topic: str) -> dict[str, str]:
    """Return the URLs of a topic's events; none if its name is invalid, or the site has no such."""
    try:
        validate_topic(topic)
        urls = {name: reverse(f"realtime:{name}", args=[topic]) for name in ("topic", "history")}
    except (InvalidTopic, NoReverseMatch):
        return {}
    return {"tail_url": urls["topic"], "history_url": urls["history"]}
