"""The demo page, and the click that signs in."""

from typing import Final

from django.contrib.auth import login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from .accounts import demo_users, one_click, strengthen
from .csp import strict_csp

#: What a signed-in user sees, in this order. A panel is a template here and, for what it does, a
#: module that `demo.js` knows by the name in its `data-panel`.
PANELS: Final = ("demo/panels/room.html", "demo/panels/answer.html")


@require_safe
@never_cache
@strict_csp
def page(request: HttpRequest) -> HttpResponse:
    """The panels, or the ways to sign in."""
    if request.user.is_authenticated:
        return render(request, "demo/page.html", {"panels": PANELS})
    users = demo_users().order_by("pk") if one_click(request) else []
    return render(request, "demo/welcome.html", {"demo_users": users})


@require_POST
def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in as a demo user without a password, on the demo's own machine."""
    if not one_click(request):
        raise PermissionDenied("One-click sign-in is off here: use /login/.")
    user = get_object_or_404(demo_users(), username=request.POST.get("username", ""))
    strengthen(user)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("demo")
