"""`GET /metrics`: the numbers of all processes of this host, in Prometheus' text format."""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ..access.scopes import require_unscoped
from ..conf import settings
from ..exceptions import DatabaseUnavailable, NotAllowed, NotIdentified
from ..metrics.collect import collect
from ..metrics.exposition import CONTENT_TYPE, render
from .requests import error_response, json_errors, reader


@login_not_required
@json_errors("GET", "HEAD")
async def metrics(request: HttpRequest) -> HttpResponseBase:
    """Return the metrics to staff, or with `METRICS_PUBLIC` to anybody."""
    if not settings.METRICS_PUBLIC:
        user: Any = (await reader(request, [])).user
        require_unscoped(user)
        if not user.is_authenticated:
            raise NotIdentified("Sign in as staff, or send an access token of one.")
        if not (getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)):
            raise NotAllowed("Metrics are for staff (or set METRICS_PUBLIC).")
    try:
        totals = await collect()
    except OSError as error:
        detail = f"The metrics can't be read: {error.strerror or error}."
        return error_response(503, detail, DatabaseUnavailable.code)
    headers = {"Cache-Control": "no-store", "Vary": "Cookie, Authorization"}
    return HttpResponse(render(totals), content_type=CONTENT_TYPE, headers=headers)
