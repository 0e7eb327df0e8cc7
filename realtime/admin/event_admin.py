"""Topics and events in Django's admin."""

import json
from typing import Any, Final

from asgiref.sync import async_to_sync
from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import models
from ..access.user_info import sender_meta
from ..conf import settings
from ..conf.token_scopes import OWN_TOPICS
from ..delivery.publish import publish
from ..eventlog import get_event_log
from ..events.payload import DEFAULT_TYPE, decode_data
from ..events.position import Position
from ..exceptions import DataTooLarge, InvalidData, InvalidEventType, InvalidTopic, RealtimeError
from .admin_pages import ReadOnlyAdmin, page_context

#: The field of `PublishForm` that an error is about; of others it is none.
FIELD_OF: Final = {
    InvalidTopic: "topic",
    InvalidEventType: "type",
    InvalidData: "json",
    DataTooLarge: "json",
}


class PublishForm(forms.Form):
    """An event to publish."""

    topic = forms.CharField(label=_("Topic"), widget=AdminTextInputWidget)
    type = forms.CharField(label=_("Type"), initial=DEFAULT_TYPE, widget=AdminTextInputWidget)
    json = forms.CharField(
        label=_("Data (JSON)"),
        widget=AdminTextareaWidget,
        initial='{"text": "hello"}',
        strip=False,
    )
    ephemeral = forms.BooleanField(label=_("Ephemeral (not logged)"), required=False)

    def clean_topic(self) -> str:
        """Refuse the package's own topics: by these, processes are told what to do."""
        topic: str = self.cleaned_data["topic"]
        if topic.startswith(OWN_TOPICS):
            raise forms.ValidationError(_("Topics “realtime.*” are for the package alone."))
        return topic


@admin.register(models.Topic)
class TopicAdmin(ReadOnlyAdmin):
    """Topics, and a page to publish to one."""

    list_display = ("name", "head", "epoch", "created", "see_events")
    search_fields = ("name",)
    change_list_template = "realtime/admin/topics.html"
    actions = ("new_epoch",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[models.Topic]:
        """Return the topics that have had an event; readiness has a row of its own."""
        return super().get_queryset(request).filter(head__gt=0)

    @admin.display(description=_("events"))
    def see_events(self, topic: models.Topic) -> str:
        """Return a link to the topic's events."""
        url = reverse("admin:realtime_event_changelist")
        return format_html('<a href="{}?topic__id__exact={}">{}</a>', url, topic.pk, _("events"))

    def has_renew_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may change topics, which a new epoch does."""
        return request.user.has_perm("realtime.change_topic")

    @admin.action(
        description=_("Begin a new epoch (after a restored backup)"), permissions=["renew"]
    )
    def new_epoch(self, request: HttpRequest, queryset: QuerySet[models.Topic]) -> None:
        """Make all positions from before invalid: a reader that has one gets a reset."""
        count = get_event_log().start_epoch(list(queryset.values_list("name", flat=True)))
        done = ngettext(
            "A new epoch of %(count)d topic.", "A new epoch of %(count)d topics.", count
        )
        self.message_user(request, done % {"count": count})

    def has_publish_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may add events, which publishing does."""
        return request.user.has_perm("realtime.add_event")

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.publish_view)
        return [path("publish/", view, name="realtime_publish"), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_publish = self.has_publish_permission(request)
        return super().changelist_view(
            request, {**(extra_context or {}), "may_publish": may_publish}
        )

    def publish_view(self, request: HttpRequest) -> HttpResponse:
        """Publish an event."""
        if not self.has_publish_permission(request):
            self.message_user(request, _("You may not publish."), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:realtime_topic_changelist"))
        form: Any = PublishForm(
            request.POST or None, initial={"topic": request.GET.get("topic", "")}
        )
        if request.method == "POST" and form.is_valid():
            values = form.cleaned_data
            try:
                data = decode_data(values["json"])
                meta = async_to_sync(sender_meta)(request.user)
                options = {"type": values["type"], "ephemeral": values["ephemeral"]}
                event = publish(values["topic"], data, meta=meta, **options)
            except RealtimeError as error:
                form.add_error(FIELD_OF.get(type(error)), str(error))
            else:
                done = _("Published to %(topic)s: %(id)s")
                said = done % {"topic": event.topic, "id": event.id or _("ephemeral")}
                self.message_user(request, said, messages.SUCCESS)
                return HttpResponseRedirect(reverse("admin:realtime_topic_changelist"))
        form.fields["json"].help_text = _("At most %(count)d bytes.") % {
            "count": settings.MAX_EVENT_BYTES
        }
        context = {
            **page_context(self, request, _("Publish an event")),
            "adminform": helpers.AdminForm(form, [(None, {"fields": [*form.fields]})], {}),
            "errors": form.errors,
        }
        return TemplateResponse(request, "realtime/admin/publish.html", context)


@admin.register(models.Event)
class EventAdmin(ReadOnlyAdmin):
    """Events, newest first, to read."""

    list_display = ("event_id", "topic", "type", "summary", "created")
    list_filter = ("created",)
    list_select_related = ("topic",)
    search_fields = ("topic__name", "type", "data")
    ordering = ("-pk",)
    show_full_result_count = False  # a count of the whole log is slow on PostgreSQL
    fields = ("event_id", "topic", "type", "pretty_data", "meta", "created")
    readonly_fields = ("event_id", "pretty_data", "meta")

    @admin.display(description=_("id"))
    def event_id(self, event: models.Event) -> str:
        """Return the id as clients see it."""
        return str(Position(event.topic.epoch, event.offset))

    @admin.display(description=_("data"))
    def summary(self, event: models.Event) -> str:
        """Return the beginning of the data."""
        return event.data if len(event.data) <= 80 else f"{event.data[:79]}…"

    @admin.display(description=_("data"))
    def pretty_data(self, event: models.Event) -> str:
        """Return the data, indented."""
        try:
            text = json.dumps(json.loads(event.data), indent=2, ensure_ascii=False)
        except RecursionError:  # nested more deeply than there is room for below a page's rendering
            text = event.data
        return format_html("<pre>{}</pre>", text)
