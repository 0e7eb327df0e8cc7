"""The app's place in a Django site."""

import logging

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from django.urls import get_resolver
from django.utils.translation import gettext_lazy as _

from .server.request_threads import BEFORE_USE

logger = logging.getLogger("realtime.server")


class RealtimeConfig(AppConfig):
    """Registers the system checks and the signals that revoke live connections."""

    name = "realtime"
    verbose_name = _("Real time")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks
        from .access.signals import connect_signals  # models must be loaded first
        from .server import lifespan as startup

        checks.register_checks()
        connect_signals()
        startup.CALLBACKS.extend((prepare_threads_when_used, load_urls, report_layer))


def prepare_threads_when_used() -> None:
    """Reset queries and close old connections when a request first uses its thread, not earlier.

    Where the server lends threads, most requests never use theirs. Django would wait for a thread
    each time, the others' requests with it where the processor is busy.
    """
    for receiver in (reset_queries, close_old_connections):
        if request_started.disconnect(receiver):
            BEFORE_USE.append(receiver)


def load_urls() -> None:
    """Import the site's URLs and views, which Django does when the first request comes.

    That one would wait for it, and with it all streams of the worker.
    """
    if getattr(settings, "ROOT_URLCONF", None):
        _ = get_resolver().url_patterns


def report_layer() -> None:
    """Log a channel layer that does not reach the other workers; only a worker has others."""
    from .checks import check_layer

    for message in check_layer():
        logger.error("%s %s", message.msg, message.hint)
