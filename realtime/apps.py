"""The app's place in a Django site."""

import logging
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.urls import get_resolver
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from .server.server import Server

logger = logging.getLogger("realtime.server")
server_starting = Signal()  # sent with `server` in each process, before that counts as ready


class RealtimeConfig(AppConfig):
    """Registers the system checks and the signals that revoke live connections."""

    name = "realtime"
    verbose_name = _("Real time")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks
        from .access.signals import connect_signals  # models must be loaded first

        checks.register_checks()
        connect_signals()
        server_starting.connect(prepare_threads_when_used)
        server_starting.connect(load_urls)
        server_starting.connect(report_layer)


def on_startup(server: "Server") -> None:
    """Do what would keep the first requests: `on_startup` of the commands' servers."""
    server_starting.send_robust(type(server), server=server)


def prepare_threads_when_used(server: "Server", **kwargs: Any) -> None:
    """Reset queries and close old connections when a request first uses its thread, not earlier.

    Where the server lends threads, most requests never use theirs. Django would wait for a thread
    each time, the others' requests with it where the processor is busy.
    """
    for receiver in (reset_queries, close_old_connections):
        if request_started.disconnect(receiver):
            server.request_threads.before_use.append(receiver)


def load_urls(**kwargs: Any) -> None:
    """Import the site's URLs and views, which Django does when the first request comes.

    That one would wait for it, and with it all streams of the worker.
    """
    if getattr(settings, "ROOT_URLCONF", None):
        _ = get_resolver().url_patterns


def report_layer(**kwargs: Any) -> None:
    """Log a channel layer that does not reach the other workers; only a worker has others."""
    from .checks import check_layer

    for message in check_layer():
        logger.error("%s %s", message.msg, message.hint)
