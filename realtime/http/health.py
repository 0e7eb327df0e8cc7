"""Health: whether the process lives, and whether it may be sent requests.

`?verbose=1` has what was checked, for staff alone: to others the answer is as plain as without.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse

from ..access.scopes import is_scoped
from ..exceptions import DatabaseUnavailable
from ..server.extensions import server_state
from ..utils.aio import PerLoop
from ..utils.asgi import scope_of, wants
from ..utils.outages import ANSWERED_ERRORS
from .readiness import HealthCheck, check_turn, get_readiness
from .requests import error_response, json_errors, reader

STAFF_SECONDS: Final = 1.0  # to find out whether staff asks; after that the answer is the plain one

_asking: Final = PerLoop(
    asyncio.Lock
)  # so that requests that pretend to be of staff cost one look-up at a time


@login_not_required
@json_errors("GET", "HEAD")
async def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while the event loop turns; a database that is away is no reason to restart."""
    return await _answer(request, [await check_turn()], "ok\n")


@login_not_required
@json_errors("GET", "HEAD")
async def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while events can be stored and announced and the server is not draining."""
    is_draining = bool(server_state(scope_of(request)).get("draining"))
    detail = "This server is shutting down." if is_draining else "serves"
    checks = [HealthCheck("draining", not is_draining, 0.0, detail)]
    if not is_draining:
        checks += await get_readiness().find()
    get_readiness().note(_reason(checks))
    return await _answer(request, checks, "ready\n")


async def _answer(request: HttpRequest, checks: Sequence[HealthCheck], text: str) -> HttpResponse:
    reason = _reason(checks)
    status = 200 if reason is None else 503
    response: HttpResponse
    if await _wants_checks(request):
        found = [
            {"name": each.name, "ok": each.is_ok, "seconds": round(each.seconds, 4)}
            | {"detail": each.detail}
            for each in checks
        ]
        response = JsonResponse({"ok": reason is None, "checks": found}, status=status)
    elif reason is None:
        response = HttpResponse(text, content_type="text/plain")
    else:
        response = error_response(status, reason, DatabaseUnavailable.code)
    response.headers["Cache-Control"] = "no-store"
    # Django's own mark: it has no other way to say that an answer is no error.
    response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001
    return response


def _reason(checks: Sequence[HealthCheck]) -> str | None:
    return next((each.detail for each in checks if not each.is_ok), None)


async def _wants_checks(request: HttpRequest) -> bool:
    """Return whether `?verbose=1` comes from staff; False where that can't be found out in time."""
    if not wants(scope_of(request), "verbose"):
        return False
    try:
        async with asyncio.timeout(STAFF_SECONDS), _asking.get():
            user = (await reader(request, [])).user
    except (TimeoutError, *ANSWERED_ERRORS):
        return False
    is_staff = getattr(user, "is_staff", False) or getattr(user, "is_superuser", False)
    return bool(is_staff) and not is_scoped(user)
