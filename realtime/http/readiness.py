"""What is asked every few seconds by a load balancer: never cached, and logged when it changes."""

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Final

from django.http import HttpRequest, HttpResponse

from ..utils.aio import PerLoop

logger = logging.getLogger("realtime.health")

View = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Readiness:
    """The state that this process last told."""

    status = 200

    def note(self, response: HttpResponse) -> None:
        """Log a change, and keep Django from logging each answer that says no."""
        # Django's own mark: it has no other way to say that an answer is no error.
        response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001
        if response.status_code != self.status:
            self.status = response.status_code
            if self.status == 200:
                logger.info("Ready again.")
            else:
                logger.warning("Not ready: %s", response.text)


def polled(view: View) -> View:
    """Let nobody cache the view's answer, and log its changes."""

    @wraps(view)
    async def wrapper(request: HttpRequest) -> HttpResponse:
        response = await view(request)
        response.headers["Cache-Control"] = "no-store"
        _readiness.get().note(response)
        return response

    return wrapper


_readiness: Final = PerLoop(Readiness)
