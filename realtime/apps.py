"""The app's place in a Django site."""

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import run_checks
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.urls import get_resolver
from django.utils.translation import gettext_lazy as _

from .metrics import collect
from .utils import reconnect

if TYPE_CHECKING:
    from .server.server import Server

server_starting = Signal()  # sent with `server` in each process, before that counts as ready


class RealtimeConfig(AppConfig):
    """Registers the system checks and the signals that revoke live connections."""

    name = "realtime"
    verbose_name = _("Real time")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks
        from .access.signals import connect_signals  # models must be loaded first
        from .delivery.hub import heads_checked
        from .delivery.relay import relay_outbox

        layers = getattr(settings, "CHANNEL_LAYERS", {}).values()
        if any("serializer_format" in layer.get("CONFIG", {}) for layer in layers):
            with suppress(ImportError):  # of which realtime.E010 tells
                import_module(".delivery.bus.serializer", __package__)  # which registers it
        reconnect.install()
        checks.register_checks()
        connect_signals()
        heads_checked.connect(relay_outbox)
        server_starting.connect(prepare_threads_when_used)
        server_starting.connect(load_urls)
        server_starting.connect(begin_metrics)


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
    # A stream keeps its thread for hours, in which its connection may be dropped.
    server.request_threads.before_call = [reconnect.replace_dropped_connections]


def load_urls(**kwargs: Any) -> None:
    """Import the site's URLs and views, which Django does when the first request comes.

    That one would wait for it, and with it all streams of the worker.
    """
    if getattr(settings, "ROOT_URLCONF", None):
        _ = get_resolver().url_patterns


def begin_metrics(server: "Server", **kwargs: Any) -> None:
    """Count with the other processes, where they share a folder."""
    collect.begin(server.state.loop)


def require_no_errors(server: "Server") -> None:
    """Refuse to start with an error: `on_startup` of the workers of `serve` and `demo`.

    The command's own checks don't see the environment of its workers, such as how many there are.
    Raises SystemExit.
    """
    found = run_checks(tags=["realtime"])
    errors = [message for message in found if message.is_serious() and not message.is_silenced()]
    if errors:
        raise SystemExit("\n".join(f"ERROR {error}" for error in errors))
