"""Access tokens in Django's admin: made here, shown once, revoked here."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import models
from ..access.permissions import PERMISSIONS
from ..access.tokens import create_token, is_active, rotate_token
from ..conf import settings
from .admin_pages import ModelAdmin, page_context

if TYPE_CHECKING:
    TokenModelForm = forms.ModelForm[models.AccessToken]
else:  # generic in the stubs only
    TokenModelForm = forms.ModelForm


class TokenForm(TokenModelForm):
    """What can be chosen about a token when it is made."""

    maker: Any = None  # the user of the request
    never = forms.BooleanField(label=_("Never expires"), required=False)

    class Meta:
        model = models.AccessToken
        fields = ("user", "name", "scopes", "expires")

    def clean_user(self) -> Any:
        """Refuse a user in whose name the maker may not act: the token is shown to the maker."""
        user = self.cleaned_data["user"]
        if user is None and not may_make_token(self.maker, None):
            raise forms.ValidationError(
                _("Superusers alone make tokens without a user: no rule limits what they may.")
            )
        if not may_make_token(self.maker, user):
            raise forms.ValidationError(
                _(
                    "You can make tokens for yourself, and for users whom you may change and "
                    "who may do nothing that you may not."
                )
            )
        # The rights of such a user are none, and the token would have all of them later.
        if user is not None and not is_active(user):
            raise forms.ValidationError(_("This user is not active: a token would be refused."))
        return user

    def clean(self) -> dict[str, Any] | None:
        """Have an end chosen, or that there is none."""
        values = super().clean() or {}
        if values.get("never"):
            values["expires"] = None
        elif "expires" not in self.errors and values.get("expires") is None:
            self.add_error("expires", _("Choose when it ends, or that it never expires."))
        return values


def may_make_token(maker: Any, user: Any) -> bool:
    """Return whether `maker` may have a token of `user`, who is active, to act as that user.

    The user is None for a service.
    """
    if maker == user or getattr(maker, "is_superuser", False):
        return True
    if user is None:
        return False
    may_change = maker.has_perm(
        f"{user._meta.app_label}.{get_permission_codename('change', user._meta)}"
    )
    return may_change and not getattr(user, "is_superuser", False) and _has_rights(maker, user)


def _has_rights(maker: Any, user: Any) -> bool:
    """Return whether `maker` has all rights of `user` that can be known."""
    rights = user.get_all_permissions() if hasattr(user, "get_all_permissions") else set()
    if not rights <= maker.get_all_permissions():
        return False
    # Asked one by one too: a backend may answer, and list nothing.
    asked = set(PERMISSIONS.values()) if hasattr(user, "has_perm") else set()
    return all(maker.has_perm(each) for each in asked if user.has_perm(each))


@admin.register(models.AccessToken)
class AccessTokenAdmin(ModelAdmin):
    """Access tokens: made here, shown once, revoked here."""

    form = TokenForm
    list_display = ("__str__", "user", "scope", "state", "created", "expires", "last_used")
    list_filter = ("revoked", "expires")
    search_fields = ("name", f"user__{get_user_model().USERNAME_FIELD}")
    actions = ("rotate", "revoke")

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # Not `autocomplete_fields`: a site may have users of its own that its admin doesn't know,
        # and Django takes that for an error.
        site, User = self.admin_site, get_user_model()
        known = site.is_registered(User) and site.get_model_admin(User).search_fields
        return ("user",) if known else ()

    @admin.display(description=_("scopes"))
    def scope(self, token: models.AccessToken) -> str:
        """Return the beginning of the scopes."""
        return Truncator(token.scopes).chars(80)

    @admin.display(description=_("state"))
    def state(self, token: models.AccessToken) -> str:
        """Return whether the token is valid, expired or revoked."""
        if token.revoked is not None:
            return str(_("revoked"))
        if token.expires is not None and token.expires <= timezone.now():
            return str(_("expired"))
        return str(_("valid") if token.rotated is None else _("rotated"))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # The list needs it for its action; a single token can't be edited, only revoked.
        return obj is None and super().has_change_permission(request, obj)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> type[TokenForm]:
        form = super().get_form(request, *args, **kwargs)
        return type(form.__name__, (form,), {"maker": request.user})

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        days = settings.TOKEN_DAYS
        end = None if days is None else timezone.now() + timedelta(days=days)
        initial = {"user": request.user.pk, "expires": end, "never": end is None}
        return {**initial, **super().get_changeform_initial_data(request)}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.token, row = create_token(obj.user, name=obj.name, scopes=obj.scopes)
        obj.pk, obj.digest, obj.created = row.pk, row.digest, row.created
        if obj.expires is not None:
            models.AccessToken.objects.filter(pk=row.pk).update(expires=obj.expires)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._page_of(request, [(obj.token, obj)])

    def _page_of(
        self, request: HttpRequest, tokens: list[tuple[str, models.AccessToken]]
    ) -> HttpResponse:
        # In this page alone: a message may be kept in a cookie, where anybody could read it.
        context = {**page_context(self, request, _("Access token")), "tokens": tokens}
        return TemplateResponse(request, "realtime/admin/token.html", context)

    def has_rotate_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may both make tokens and end them."""
        return self.has_add_permission(request) and self.has_change_permission(request)

    @admin.action(
        description=_("Rotate the selected tokens: make new ones in their place"),
        permissions=["rotate"],
    )
    def rotate(
        self, request: HttpRequest, queryset: QuerySet[models.AccessToken]
    ) -> HttpResponse | None:
        """Make a token in the place of each, and show the new ones; the old go on for a while."""
        made: list[tuple[str, models.AccessToken]] = []
        for row in queryset.select_related("user"):
            if not may_make_token(request.user, row.user):
                refusal = _("You may not make a token in the place of “%(token)s”.")
                self.message_user(request, refusal % {"token": row}, messages.ERROR)
                continue
            try:
                made.append(rotate_token(row))
            except ValidationError as error:
                self.message_user(request, error.messages[0], messages.ERROR)
            else:
                self.log_change(request, row, str(_("Rotated")))
        return self._page_of(request, made) if made else None

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
