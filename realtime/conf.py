"""The `REALTIME` settings dict: one typed table, from which the checks and the page are made.

Nothing is read at import: `settings.NAME` looks the value up when it is first needed, and forgets
it when a test overrides `REALTIME`.
"""

import math
import re
from typing import Any, Final, Generic, Self, TypeVar, cast, overload

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .exceptions import RealtimeConfigurationError

T = TypeVar("T")

# As browsers write it: lower case, no path, not even a slash (RFC 6454, section 6.2).
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@A-Z]+")

# What a site may have named in its settings, and where it is now.
MOVED_PATHS: Final = {
    "realtime.log.database.DatabaseLog": "realtime.eventlog.database.DatabaseLog",
    "realtime.log.memory.MemoryLog": "realtime.eventlog.memory.MemoryLog",
    "realtime.permissions.default_rule": "realtime.access.permissions.default_rule",
} | {
    f"realtime.llm.{path}": f"realtime.llm.providers.{path}"
    for path in (
        "anthropic.AnthropicProvider",
        "dummy.DummyProvider",
        "offline.OfflineProvider",
        "openai.OpenAIProvider",
    )
}


class Setting(Generic[T]):
    """One key of `REALTIME`: its default, its unit, and what happens at the limit."""

    def __init__(self, default: T, unit: str, help: str, *, is_nullable: bool = False) -> None:
        self.default = default
        self.unit = unit
        self.help = help
        self.is_nullable = is_nullable

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # Kept as an instance attribute, which then hides this descriptor: the look-up is on the
        # path of every event.
        value = self.resolve(given().get(self.name, self.default))
        instance.__dict__[self.name] = value
        return value

    def resolve(self, value: Any) -> T:
        """Return what the code gets for the value in Django's settings."""
        return cast(T, MOVED_PATHS.get(value, value) if isinstance(value, str) else value)

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value, and the remedy; None if nothing is."""
        if value is None:
            remedy = f"The default is {self.default!r}."
            return None if self.is_nullable else ("is None, which means nothing here.", remedy)
        if not isinstance(self.default, int | float):
            kind = type(self.default)
            return None if type(value) is kind else (f"is {value!r}.", f"A {kind.__name__}.")
        is_whole = isinstance(self.default, int) and self.unit != "seconds"
        kinds = (int,) if is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            number = "whole number" if is_whole else "number"
            return f"is {value!r}.", f"A {number}, as {self.default!r}."
        if value <= 0:
            return f"is {value!r}.", f"More than zero, as {self.default!r}."
        return None


class DottedPath(Setting[Any]):
    """A setting that names an object; the code gets the object."""

    def resolve(self, value: Any) -> Any:
        """Import the object; raise `RealtimeConfigurationError` if that can't be done."""
        if not isinstance(value, str):
            return value
        try:
            return import_string(super().resolve(value))
        except ImportError as error:
            raise RealtimeConfigurationError(
                f"REALTIME[{self.name!r}] = {value!r} can't be imported: {error}"
            ) from error

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value, without importing anything."""
        if isinstance(value, str) or callable(value) or (value is None and self.is_nullable):
            return None
        return f"is {value!r}.", "A dotted path, as 'app.module.name'."


class Choice(Setting[str]):
    """A setting that is one of the words that its unit names."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with what is none of the words."""
        is_one = value in self.unit.split(" or ")
        return None if is_one else (f"is {value!r}.", f"One of {self.unit}.")


class Origins(Setting[list[str]]):
    """A setting that lists origins as browsers send them."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return the first entry that no browser sends as its Origin."""
        if not isinstance(value, list | tuple):
            return f"is {value!r}.", "A list, as ['https://app.example.com']."
        for origin in value:
            if not isinstance(origin, str) or _ORIGIN.fullmatch(origin) is None:
                hint = "Scheme and host in lower case, without a path: 'https://app.example.com'."
                return f"has {origin!r}, which no browser sends as its Origin.", hint
        return None


def given() -> dict[str, Any]:
    """Return the site's `REALTIME`; raise `RealtimeConfigurationError` if it is not a dict."""
    found = getattr(django_settings, "REALTIME", {})
    if not isinstance(found, dict):
        raise RealtimeConfigurationError("REALTIME is not a dict.")
    return found


# fmt: off
class Settings:
    """The table of the core; `realtime.llm.conf` has that of the language models."""

    # The log
    EVENT_LOG = DottedPath("realtime.eventlog.database.DatabaseLog", "dotted path",
        "The `EventLog` class that stores events.")
    MAX_EVENT_BYTES = Setting(65_536, "bytes of JSON, UTF-8",
        "One event's data. More is refused with `DataTooLarge` (HTTP 413, error `too_large`); "
        "nothing is stored.")
    MAX_META_BYTES = Setting(1_024, "bytes of JSON, UTF-8", "One event's metadata; more, as above.")
    RETENTION_SECONDS = Setting[int | None](7 * 86_400, "seconds",
        "Older events are dropped by the next pruning; a reader that still "
        "needed them gets a reset. `None`: age drops nothing.", is_nullable=True)
    RETENTION_EVENTS = Setting[int | None](100_000, "events per topic",
        "The oldest beyond it are dropped by the next pruning. `None`: the "
        "count drops nothing.", is_nullable=True)
    PRUNE_INTERVAL_SECONDS = Setting[float | None](600.0, "seconds",
        "The serving processes apply retention this often, in turn: one of them. `None`: only "
        "`manage.py prune_events` does.", is_nullable=True)
    LOG_PAGE_EVENTS = Setting(200, "events",
        "One catch-up read; the rest comes with the next read.")
    LOG_PAGE_BYTES = Setting(65_536, "bytes of JSON, UTF-8",
        "The same, by size: what a stalled reader may hold in memory. A larger event comes "
        "alone.")
    APPEND_RESOLVE_SECONDS = Setting(10.0, "seconds",
        "Where the database did not answer a COMMIT, how long the log tries to find out whether "
        "the event is stored. Then publishing fails with the code `unknown` (503).")
    DATABASE_THREADS = Setting(4, "threads",
        "Each keeps one database connection. When all are busy, log reads and writes wait their "
        "turn; there are up to twice as many while calls take longer than 2 s. Half of them may "
        "wait for topics that others have locked; more such topics wait behind.")
    DATABASE_ANSWER_SECONDS = Setting[float | None](3.0, "seconds",
        "A connection to PostgreSQL on which the server has not answered for this long, and does "
        "not work at it either, is closed: the call fails or is made again, what may be stored is "
        "looked up. For pools with the `connection_class` `realtime.WatchedConnection`. `None`: "
        "it waits for ever.", is_nullable=True)

    # The hub
    CHANNEL_LAYER = Setting("default", "alias",
        "Which of `CHANNEL_LAYERS` carries announcements. `channels_redis.core` needs a "
        "`socket_timeout` over 5 s in its `hosts`, or redis-py 8 calls an idle layer broken "
        "(`realtime.W006`).")
    HEAD_CHECK_SECONDS = Setting(2.0, "seconds",
        "A lost announcement with none after it is found at the latest after this time. As "
        "often, a process with readers says to the others that it listens; one that has heard "
        "of no other for five times as long announces nothing. It also sends itself a message: a "
        "layer that has brought nothing after `ANNOUNCE_TIMEOUT_SECONDS` is connected to anew, "
        "and `/readyz` says 503 until it does.")
    GROUP_REFRESH_SECONDS = Setting(300.0, "seconds",
        "The layer's group memberships are renewed this often; has to stay below the layer's "
        "`group_expiry`.")
    ANNOUNCE_TIMEOUT_SECONDS = Setting(2.0, "seconds",
        "An announcement that the layer has not taken by then is dropped with a warning; other "
        "processes find the event in the log.")
    ANNOUNCE_QUEUE = Setting(1_000, "announcements",
        "Waiting for the layer; further ones are dropped with a warning, as above.")
    TAIL_EVENTS = Setting(256, "events per topic",
        "The newest are kept in memory while the topic has readers; older ones are read from "
        "the log.")
    TAIL_BYTES = Setting(262_144, "bytes per topic",
        "The same, by size.")
    EPHEMERAL_QUEUE = Setting(64, "events per subscriber",
        "Ephemeral events not sent yet; the oldest is dropped.")

    # The streams
    KEEPALIVE_SECONDS = Setting(15.0, "seconds",
        "A stream that was silent for this long sends a comment.")
    SSE_RETRY_MS = Setting(2_000, "milliseconds",
        "How long `EventSource` is told to wait before it reconnects.")
    MAX_TOPICS = Setting(50, "topics",
        "On one stream or socket; more get HTTP 400 or the error `too_many`.")
    STREAM_THREADS = Setting(4, "threads",
        "Run the synchronous parts of streams' own generators; on PostgreSQL each keeps a "
        "connection. A stream borrows one for a call; when all are busy, it waits its turn.")
    PROGRESS_SECONDS = Setting(0.2, "seconds",
        "`Progress` tells at most one step in this time; the last one always.")

    # Rows and files
    TRANSFER_THREADS = Setting(4, "threads",
        "Read rows, files and archives, a piece at a time. When all are busy, the next piece "
        "waits its turn.")
    PAGE_ROWS = Setting(2_000, "rows",
        "Read from a queryset at once; the rest comes with the next page.")
    PAGE_BYTES = Setting(262_144, "bytes",
        "The same, by size, as the rows before suggest. A client that stalls keeps one page in "
        "memory.")
    UNWRITABLE_ROWS = Choice("cut", "cut or error",
        "What NDJSON does at a row that can't be read or written as JSON: it is cut, or goes on "
        'after `{"error": {"key": ..., "detail": ...}}`. The log has the key.')
    CURSOR_SECONDS = Setting(30.0, "seconds",
        "A queryset that is not in the order of its primary key needs a cursor. Of a client "
        "that takes nothing for this long it is closed, and the stream is cut.")
    STREAM_CURSORS = Setting(2, "cursors per process",
        "Each holds a database connection; further streams wait.")
    BATCH_SECONDS = Setting(0.05, "seconds",
        "Lines of an async source are sent at the latest this long after the ones before.")
    BATCH_BYTES = Setting(65_536, "bytes",
        "The same, by size. Then the source waits until the client has read.")
    FILE_CHUNK_BYTES = Setting(262_144, "bytes",
        "Of a file in memory at once, where the kernel can't copy it to the socket.")
    MAX_RANGES = Setting(50, "ranges",
        "Parts of one file in one answer; a request for more gets the whole file.")
    ACCEL_REDIRECT = Setting("", "URL path",
        "nginx's `internal` location for the files, as `\"/protected/\"`: they are sent by nginx. "
        "Empty: by this process.")

    # WebSockets
    HEARTBEAT_SECONDS = Setting(25.0, "seconds",
        '`{"type": "ping"}` is sent this often. A client that has answered before and is then '
        "silent for two intervals is closed with 1011.")
    FIRST_MESSAGE_SECONDS = Setting(10.0, "seconds",
        "Time to send the token where the first message carries it; then 4408.")
    MAX_BAD_MESSAGES = Setting(10, "messages",
        "Each bad message gets an error; at this number the socket is closed with 4400.")
    INBOX_MESSAGES = Setting(32, "messages",
        "Received and waiting for their handler; then nothing more is read from the socket.")
    HANDLER_GRACE_SECONDS = Setting(0.9, "seconds",
        "A handler that runs this long after its peer left is cancelled.")

    # Identities
    PERMISSION = DottedPath("realtime.access.permissions.default_rule", "dotted path",
        "`async def rule(user, topic, action) -> bool`. Only `True` permits; a rule that raises "
        "denies.")
    PRESENCE_INFO = DottedPath("realtime.access.user_info.default_info", "dotted path",
        "`async def info(user) -> dict | None`: what others see of who publishes (`sender`); for "
        "each event. `None`: nothing.", is_nullable=True)
    ALLOWED_ORIGINS = Origins([], "origins",
        'Besides the same origin (scheme, host, port): `"https://app.example.com"`, lower case and '
        'without a path, or `"*"`: any page, and then its session cookie does not count. Others '
        "get HTTP 403.")
    RECHECK_SECONDS = Setting(30.0, "seconds",
        "The rights of live connections are checked this often, besides at once when a user or "
        "token changes.")
    IDENTITY_CACHE_SECONDS = Setting[float | None](5.0, "seconds",
        "A process trusts what it has looked up for this long, while it hears "
        "of changed users and tokens at once. `None`: every request is looked "
        "up.", is_nullable=True)
    TICKET_SECONDS = Setting(30, "seconds",
        "Life of a single-use ticket; then 401.")
    TOKEN_TOUCH_SECONDS = Setting(60, "seconds",
        "A token's \"last used\" is written at most this often.")
# fmt: on

    def __init__(self) -> None:
        setting_changed.connect(self._reset)

    def _reset(self, *, setting: str, **kwargs: Any) -> None:
        if setting == "REALTIME":
            self.reset()

    def reset(self) -> None:
        """Forget what was looked up; the next access reads Django's settings again."""
        self.__dict__.clear()

    @classmethod
    def table(cls) -> dict[str, Setting[Any]]:
        """Return the settings by name, in the order in which they are written."""
        return {name: each for name, each in vars(cls).items() if isinstance(each, Setting)}


settings = Settings()
