"""The `REALTIME` settings dict: one table of defaults, one accessor.

Nothing is read at import; `settings.NAME` looks the value up when it is needed, and the
resolved table is dropped when a test overrides `REALTIME`.
"""

from typing import Any, Final

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .exceptions import RealtimeConfigurationError

# fmt: off
DEFAULTS: Final[dict[str, Any]] = {
    # -- the log
    "EVENT_LOG": "realtime.eventlog.database.DatabaseLog",  # dotted path of the EventLog
    "MAX_EVENT_BYTES": 65_536,          # one event's JSON text, UTF-8; more is refused (413)
    "RETENTION_SECONDS": 7 * 86_400,    # age at which prune_events drops an event; None: never
    "RETENTION_EVENTS": 100_000,        # events kept per topic; None: no limit
    "PRUNE_INTERVAL_SECONDS": 600.0,    # a serving process prunes this often; None: by hand only
    "LOG_PAGE_EVENTS": 200,             # events fetched by one catch-up read
    "LOG_PAGE_BYTES": 65_536,           # and their bytes, which a stalled reader may hold in memory
    "DATABASE_THREADS": 4,              # threads (and so connections) per process for the log
    # -- the hub
    "CHANNEL_LAYER": "default",         # alias in CHANNEL_LAYERS
    "HEAD_CHECK_SECONDS": 2.0,          # how often lost announcements are looked for
    "GROUP_REFRESH_SECONDS": 300.0,     # how often the layer's group memberships are renewed
    "ANNOUNCE_TIMEOUT_SECONDS": 2.0,    # an announcement the layer has not taken by then is dropped
    "ANNOUNCE_QUEUE": 1_000,            # announcements waiting for the layer; more are dropped
    "TAIL_EVENTS": 256,                 # newest events kept in memory per served topic
    "TAIL_BYTES": 262_144,              # and their bytes; older ones are read from the log
    "EPHEMERAL_QUEUE": 64,              # unsent ephemeral events per subscriber; the oldest go
    # -- the streams
    "KEEPALIVE_SECONDS": 15.0,          # SSE comment when nothing else was sent
    "SSE_RETRY_MS": 2_000,              # reconnection time told to EventSource
    "MAX_TOPICS": 50,                   # topics on one stream or socket
    "PROGRESS_SECONDS": 0.2,            # a job's steps in between are not told, but for the last
    # -- rows and files
    "TRANSFER_THREADS": 4,              # threads per process that read rows, files and archives
    "PAGE_ROWS": 2_000,                 # rows read at once from a queryset, at most
    "PAGE_BYTES": 262_144,              # and their bytes, by the size of the rows before
    "CURSOR_SECONDS": 30.0,             # a cursor whose client takes nothing is closed by then
    "STREAM_CURSORS": 2,                # open cursors per process; further streams wait
    "BATCH_SECONDS": 0.05,              # lines of an async source wait at most this long
    "BATCH_BYTES": 65_536,              # and are sent at once when they are so many bytes
    "FILE_CHUNK_BYTES": 262_144,        # a file's bytes in memory where the kernel can't copy it
    "MAX_RANGES": 50,                   # parts in one answer; more, and the whole file is sent
    "ACCEL_REDIRECT": "",               # nginx's internal location of the files; "": send them here
    # -- answers of language models
    "LLM_PROVIDER": "offline",          # short name, or dotted path of the Provider
    "LLM_MODEL": "",                    # as its provider calls it; "": its class chooses
    "LLM_API_KEY": "",                  # "": where the provider's SDK looks for it
    "LLM_BASE_URL": "",                 # "": the provider's own
    "LLM_MAX_PROMPT_CHARS": 8_000,      # a longer prompt is refused (400)
    "LLM_MAX_TOKENS": 4_096,            # asked of the provider
    "LLM_MAX_ANSWER_CHARS": 32_000,     # then the answer is cut, and `length` its stop_reason
    "LLM_TOKEN_SECONDS": 30.0,          # without a token by then, the answer ends with an error
    "LLM_ANSWER_SECONDS": 600.0,        # the same, for the whole of it
    "LLM_PER_PROCESS": 50,              # answers under way; more are refused (429)
    "LLM_PER_USER": 3,                  # and those of one user
    "LLM_BATCH_SECONDS": 0.05,          # tokens published to a topic wait at most this long
    "LLM_BATCH_CHARS": 2_000,           # characters in one of the events
    "LLM_HEARTBEAT_SECONDS": 1.0,       # a sign of life of an answer at work; finds a cancelled one
    "LLM_LEASE_SECONDS": 10.0,          # without one for so long, its process counts as dead
    "LLM_UNHEARD_SECONDS": 60.0,        # nobody listens to its topic: it is ended
    # -- WebSockets
    "HEARTBEAT_SECONDS": 25.0,          # application ping; two without any answer close the socket
    "FIRST_MESSAGE_SECONDS": 10.0,      # time to send the token where the first message carries it
    "MAX_BAD_MESSAGES": 10,             # bad messages answered with an error before 4400
    "INBOX_MESSAGES": 32,               # received messages waiting for their handler; then no reads
    "HANDLER_GRACE_SECONDS": 0.9,       # a handler may finish this long after its peer left
    # -- who is asking
    "PERMISSION": "realtime.access.permissions.default_rule",  # dotted path of the rule
    "ALLOWED_ORIGINS": [],              # besides the same origin: "https://app.example.com", or "*"
    "RECHECK_SECONDS": 30.0,            # how often live connections' rights are checked
    "IDENTITY_CACHE_SECONDS": 5.0,      # a process trusts a look-up that long; None: look each time
    "TICKET_SECONDS": 30,               # life of a single-use ticket
    "TOKEN_TOUCH_SECONDS": 60,          # "last used" is written at most this often
}
# fmt: on

DOTTED_PATHS: Final = frozenset({"EVENT_LOG", "PERMISSION"})
NULLABLE: Final = frozenset(
    {
        "RETENTION_SECONDS",
        "RETENTION_EVENTS",
        "PRUNE_INTERVAL_SECONDS",
        "IDENTITY_CACHE_SECONDS",
    }
)


class RealtimeSettings:
    """Attribute access to the settings dict over its defaults; dotted paths come imported."""

    def __getattr__(self, name: str) -> Any:
        if name not in DEFAULTS:
            raise AttributeError(f"REALTIME has no setting {name!r}")
        given = getattr(django_settings, "REALTIME", {})
        if not isinstance(given, dict):
            raise RealtimeConfigurationError("REALTIME is not a dict.")
        value = given.get(name, DEFAULTS[name])
        if name in DOTTED_PATHS and isinstance(value, str):
            try:
                value = import_string(value)
            except ImportError as error:
                raise RealtimeConfigurationError(
                    f"REALTIME[{name!r}] = {value!r} can't be imported: {error}"
                ) from error
        # Cached as an instance attribute: the lookup is on the path of every event.
        self.__dict__[name] = value
        return value

    def reset(self) -> None:
        """Forget what was looked up; the next access reads Django's settings again."""
        self.__dict__.clear()


settings = RealtimeSettings()


def _reset(*, setting: str, **kwargs: Any) -> None:
    if setting == "REALTIME":
        settings.reset()


setting_changed.connect(_reset)
