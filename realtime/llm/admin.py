"""Answers of language models in Django's admin: read-only, but for cancelling one."""

from datetime import timedelta
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..admin.admin_pages import ReadOnlyAdmin
from . import generation
from .conf import settings
from .models import Generation


class AtWorkFilter(admin.SimpleListFilter):
    """Answers under way, or ended."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("running", str(_("under way"))), ("ended", str(_("ended")))]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Generation]
    ) -> QuerySet[Generation]:
        if self.value() not in ("running", "ended"):
            return queryset
        return queryset.filter(ended__isnull=self.value() == "running")


_COLUMNS: Final = ("topic", "user", "state", "model", "input_tokens", "output_tokens", "created")


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    """Answers of language models that are published to a topic, to read and to cancel."""

    list_display = (*_COLUMNS, "see_events")
    list_filter = (AtWorkFilter, "outcome", "model", "created")
    list_select_related = ("user",)
    search_fields = ("topic", "model", f"user__{get_user_model().USERNAME_FIELD}")
    ordering = ("-pk",)
    show_full_result_count = False
    actions = ("cancel",)
    fields = (*_COLUMNS, "beat", "heard", "ended")
    readonly_fields = ("state",)

    @admin.display(description=_("state"), ordering="ended")
    def state(self, row: Generation) -> str:
        """Return how it ended; until then, whether its process is still at work."""
        if row.ended is not None:
            return row.outcome
        lease = timedelta(seconds=settings.LLM_LEASE_SECONDS)
        lost = row.beat < timezone.now() - lease
        return str(_("no sign of life") if lost else _("under way"))

    @admin.display(description=_("events"))
    def see_events(self, row: Generation) -> str:
        """Return a link to what was published."""
        url = reverse("admin:realtime_event_changelist")
        return format_html('<a href="{}?q={}">{}</a>', url, row.topic, _("events"))

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may change answers, which cancelling does."""
        return request.user.has_perm("realtime_llm.change_generation")

    @admin.action(description=_("Cancel the selected answers"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Generation]) -> None:
        """Cancel the answers, on whichever worker they run; their text so far stays."""
        names = list(queryset.filter(ended=None).values_list("name", flat=True))
        count = async_to_sync(generation.cancel_all)(names)
        done = ngettext("%(count)d answer cancelled.", "%(count)d answers cancelled.", count)
        self.message_user(request, done % {"count": count})
