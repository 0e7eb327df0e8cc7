"""Topics, events and access tokens in Django's admin."""

import json
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import async_to_sync
from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.contrib.auth import get_permission_codename, get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from . import models
from .access.tokens import create_token
from .access.user_info import sender_meta
from .conf import settings
from .delivery.publish import publish
from .eventlog import get_event_log
from .events.payload import DEFAULT_TYPE, decode_data
from .events.position import Position
from .exceptions import DataTooLarge, InvalidData, InvalidEventType, InvalidTopic, RealtimeError

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TokenModelForm = forms.ModelForm[models.AccessToken]
else:  # generic in the stubs only
    ModelAdmin = admin.ModelAdmin
    TokenModelForm = forms.ModelForm


#: The field of `PublishForm` that an error is about; of others it is none.
FIELD_OF: Final = {
    InvalidTopic: "topic",
    InvalidEventType: "type",
    InvalidData: "json",
    DataTooLarge: "json",
}


def page_context(model_admin: ModelAdmin, request: HttpRequest, title: Any) -> dict[str, Any]:
    """Return what Django's page of one object needs for a page of ours in its place."""
    return {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "original": str(title),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "has_view_permission": model_admin.has_view_permission(request),
    }


class ReadOnlyAdmin(ModelAdmin):
    """The log is written by `publish` alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


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


class TokenForm(TokenModelForm):
    """What can be chosen about a token when it is made."""

    maker: Any = None  # the user of the request

    class Meta:
        model = models.AccessToken
        fields = ("user", "name", "expires")

    def clean_user(self) -> Any:
        """Refuse a user in whose name the maker may not act: the token is shown to the maker."""
        user = self.cleaned_data["user"]
        if not may_make_token(self.maker, user):
            raise forms.ValidationError(
                _(
                    "You can make tokens for yourself, and for users whom you may change and "
                    "who may do nothing that you may not."
                )
            )
        return user


def may_make_token(maker: Any, user: Any) -> bool:
    """Return whether `maker` may have a token of `user`, who is then as good as himself."""
    if maker == user or getattr(maker, "is_superuser", False):
        return True
    may_change = maker.has_perm(
        f"{user._meta.app_label}.{get_permission_codename('change', user._meta)}"
    )
    rights = user.get_all_permissions() if hasattr(user, "get_all_permissions") else set()
    is_less = not getattr(user, "is_superuser", False) and rights <= maker.get_all_permissions()
    return may_change and is_less


@admin.register(models.AccessToken)
class AccessTokenAdmin(ModelAdmin):
    """Access tokens: made here, shown once, revoked here."""

    form = TokenForm
    list_display = ("__str__", "user", "state", "created", "expires", "last_used")
    list_filter = ("revoked", "expires")
    search_fields = ("name", f"user__{get_user_model().USERNAME_FIELD}")
    actions = ("revoke",)

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # Not `autocomplete_fields`: a site may have users of its own that its admin doesn't know,
        # and Django takes that for an error.
        site, User = self.admin_site, get_user_model()
        known = site.is_registered(User) and site.get_model_admin(User).search_fields
        return ("user",) if known else ()

    @admin.display(description=_("state"))
    def state(self, token: models.AccessToken) -> str:
        """Return whether the token is valid, expired or revoked."""
        if token.revoked is not None:
            return str(_("revoked"))
        if token.expires is not None and token.expires <= timezone.now():
            return str(_("expired"))
        return str(_("valid"))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # The list needs it for its action; a single token can't be edited, only revoked.
        return obj is None and super().has_change_permission(request, obj)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> type[TokenForm]:
        form = super().get_form(request, *args, **kwargs)
        return type(form.__name__, (form,), {"maker": request.user})

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"user": request.user.pk, **super().get_changeform_initial_data(request)}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.token, row = create_token(obj.user, name=obj.name)
        obj.pk, obj.digest, obj.created = row.pk, row.digest, row.created
        if obj.expires is not None:
            models.AccessToken.objects.filter(pk=row.pk).update(expires=obj.expires)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        # In this page alone: a message may be kept in a cookie, where anybody could read it.
        context = {**page_context(self, request, _("Access token")), "token": obj.token}
        return TemplateResponse(request, "realtime/admin/token.html", context)

    @admin.action(description=_("Revoke the selected tokens"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[models.AccessToken]) -> None:
        """Revoke the tokens, which closes the connections that use them."""
        count = 0
        for token in queryset.filter(revoked=None):
            token.revoked = timezone.now()
            token.save(update_fields=["revoked"])  # not update(): the signal ends live connections
            count += 1
        done = ngettext("%(count)d token revoked.", "%(count)d tokens revoked.", count)
        self.message_user(request, done % {"count": count})
