"""What pages of ours in Django's admin have in common."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:  # generic in the stubs only
    ModelAdmin = admin.ModelAdmin


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
    """Rows that are written by the package alone."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
