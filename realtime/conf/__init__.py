"""The `REALTIME` settings dict: one typed table, from which the checks and the page are made.

Nothing is read at import: `settings.NAME` looks the value up when it is first needed, and forgets
it when a test overrides `REALTIME`.
"""

from typing import Any

from django.core.signals import setting_changed

from .rate import RateSetting
from .setting import Choice, DottedPath, Most, Origins, Secret, Setting, Switch
from .topic_patterns import TopicPatterns


# fmt: off
class Settings:
    """The table of the core; `realtime.llm.conf` has that of the language models."""

    # The log
    EVENT_LOG = DottedPath("realtime.eventlog.database.DatabaseLog", "dotted path",
        "The `EventLog` class that stores events.")
    REDIS_LOG_URL = Secret("", "URL",
        "Of the Redis or Valkey that `realtime.eventlog.redis.log.RedisLog` stores events in: "
        "`redis://`, `rediss://`, `unix://`, `redis+sentinel://host,host/name`, "
        "`redis+cluster://host`.")
    REDIS_LOG_PARTITIONS = Setting(128, "partitions",
        "Topics are shared out among as many slots of a cluster. On a cluster, events that are "
        "stored together have to be in one. Another number is another log: readers get a reset.")
    REDIS_LOG_TRUST_RESTART = Switch(False, "True or False",
        "A Redis that was restarted or replaced begins new epochs: readers get a reset, since it "
        "may have lost the last events. True, for `appendfsync always` alone: it has lost none.")
    REDIS_LOG_OUTBOX = Switch(False, "True or False",
        "What is published in a transaction is a row of the database until it is stored in Redis: "
        "a process that ends between the two loses nothing. Costs an INSERT and a DELETE for each "
        "`publish()` there. See [engines.md](engines.md#the-log-in-redis).")
    REDIS_LOG_ANSWER_SECONDS = Setting(3.0, "seconds",
        "A connection to the log's Redis on which there is no answer by then is closed, and what "
        "was asked is asked again on another.")
    MAX_EVENT_BYTES = Setting(65_536, "bytes of JSON, UTF-8",
        "One event's data. More is refused with `DataTooLarge` (HTTP 413, error `too_large`); "
        "nothing is stored.")
    MAX_META_BYTES = Setting(1_024, "bytes of JSON, UTF-8", "One event's metadata; more, as above.")
    MAX_BATCH_EVENTS = Setting(100, "events", "In one `POST /events`; more get HTTP 413.")
    MAX_BATCH_BYTES = Setting(1_048_576, "bytes", "The same, by size.")
    IDEMPOTENCY_SECONDS = Setting(86_400, "seconds",
        "For at least this long a publisher's key is known; then the next pruning forgets it.")
    RETENTION_SECONDS = Setting[int | None](7 * 86_400, "seconds",
        "Older events are dropped by the next pruning; a reader that still "
        "needed them gets a reset. `None`: age drops nothing.", is_nullable=True)
    RETENTION_EVENTS = Setting[int | None](100_000, "events per topic",
        "The oldest beyond it are dropped by the next pruning. `None`: the "
        "count drops nothing.", is_nullable=True)
    PRUNE_INTERVAL_SECONDS = Setting[float | None](600.0, "seconds",
        "The serving processes apply retention this often, in turn: one of them. `None`: only "
        "`manage.py prune_events` does.", is_nullable=True)
    LOG_PAGE_EVENTS = Setting(200, "events", "One catch-up read; the rest comes with the next.")
    LOG_PAGE_BYTES = Setting(65_536, "bytes of JSON, UTF-8",
        "The same, by size: what a stalled reader may hold in memory. A larger event comes alone.")
    APPEND_RESOLVE_SECONDS = Setting(10.0, "seconds",
        "Where the database did not answer a COMMIT, or Redis an append, how long the log tries to "
        "find out whether the event is stored. Then publishing fails with the code `unknown` "
        "(503).")
    DATABASE_THREADS = Setting(4, "threads",
        "Each keeps one database connection. When all are busy, log reads and writes wait their "
        "turn; there are up to twice as many while calls take longer than 2 s. Half of them may "
        "wait for topics that others have locked; more such topics wait behind.")
    DATABASE_ANSWER_SECONDS = Setting[float | None](3.0, "seconds",
        "A connection to PostgreSQL on which the server has not answered for this long, and does "
        "not work at it either, is closed: the call fails or is made again, what may be stored is "
        "looked up. For pools with the `connection_class` `realtime.WatchedConnection`. `None`: "
        "it waits for ever.", is_nullable=True)

    # Topics
    TOPICS = TopicPatterns({}, "patterns",
        "What else holds for some topics, as `{\"room.*\": {\"RETENTION_EVENTS\": 100}}`: "
        "`RETENTION_SECONDS` and `RETENTION_EVENTS`, and the keys below. Of the patterns that "
        "match, the first counts, and then the site's settings. See [topics.md](topics.md).",
        {"RETENTION_SECONDS": RETENTION_SECONDS, "RETENTION_EVENTS": RETENTION_EVENTS})

    # The hub
    BUS = Choice("channels", "channels or postgres or redis or nats or memory",
        "What carries announcements to the other processes: the layer that `CHANNEL_LAYER` names, "
        "PostgreSQL's NOTIFY, Redis without a layer, NATS, or nothing (a single process). The log "
        "fills in what is lost: [engines.md](engines.md).")
    NOTIFY_DATABASE_URL = Secret("", "URL",
        "For `BUS = \"postgres\"` behind a pooler, as PgBouncer: the log's database past it, where "
        "a session can LISTEN. Empty: as Django connects to it.")
    REDIS_BUS_URL = Secret("", "URL",
        "For `BUS = \"redis\"`: `redis://user:password@host:6379`, `rediss://`, `unix:///path`, "
        "`redis+cluster://`, `redis+sentinel://sentinel,sentinel/name`. With commas between, "
        "others that are asked where one is away. [engines.md](engines.md) has more.")
    NATS_URL = Secret("", "URL",
        "For `BUS = \"nats\"`: `nats://user:password@host:4222`, `nats://token@host`, `tls://`. "
        "With commas between, further servers of one cluster.")
    NATS_OPTIONS = Setting[dict[str, Any]]({}, "arguments",
        "Further ones of nats-py's `connect`, as `user_credentials` (a file) or `tls` (an "
        "`SSLContext`).")
    CHANNEL_LAYER = Setting("default", "alias",
        "Which of `CHANNEL_LAYERS` is the bus `channels`. `channels_redis.core` needs a "
        "`socket_timeout` over 5 s in its `hosts`, or redis-py 8 calls an idle layer broken "
        "(`realtime.W006`).")
    HEAD_CHECK_SECONDS = Setting(2.0, "seconds",
        "A lost announcement with none after it is found at the latest after this time. As often, "
        "a process with readers sends itself a message (50 a second where there are 100): a bus "
        "that has brought nothing after `ANNOUNCE_TIMEOUT_SECONDS` is connected to anew, and "
        "`/readyz` says 503 until it does.")
    HEAD_CHECK_IDLE_SECONDS = Setting(30.0, "seconds",
        "A process with more than 500 topics compares those that have new events each time, and "
        "all others in turn within this time: what the log can't tell to be new, as a new epoch, "
        "or a transaction that took longer than `HEAD_CHECK_SECONDS`, is found by then.")
    PROCESS_BEAT_SECONDS = Setting[float | None](2.0, "seconds",
        "A process with readers writes its row this often, where announcements go to others. One "
        "that finds no other row alive announces only what is ephemeral. `None`, for databases "
        "that sleep: no rows, and all is announced. The same in all processes.", is_nullable=True)
    PROCESS_LEASE_SECONDS = Setting(10.0, "seconds",
        "A row that was not written for this long counts no more. Over two of "
        "`PROCESS_BEAT_SECONDS` (`realtime.W011`).")
    GROUP_REFRESH_SECONDS = Setting(300.0, "seconds",
        "With `BUS = \"channels\"` each group membership is renewed this often, not all at once; "
        "has to stay below the layer's `group_expiry`.")
    ANNOUNCE_TIMEOUT_SECONDS = Setting(2.0, "seconds",
        "An announcement that the bus has not taken by then is dropped with a warning; other "
        "processes find the event in the log.")
    ANNOUNCE_QUEUE = Setting(1_000, "announcements",
        "Waiting for the bus; further ones are dropped with a warning, as above.")
    TAIL_EVENTS = Setting(256, "events per topic",
        "The newest are kept in memory while the topic has readers; older ones are read from "
        "the log.")
    TAIL_BYTES = Setting(262_144, "bytes per topic", "The same, by size.")
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

    # Presence, of topics with `PRESENCE` in `TOPICS`
    PRESENCE_SECONDS = Setting(1.0, "seconds",
        "Who has come and left is written, read and told at most this often: one frame per topic, "
        "however many they are.")
    PRESENCE_GRACE_SECONDS = Setting(15.0, "seconds",
        "Who left counts as there for this long: who comes back meanwhile was never gone. Those of "
        "a process that was killed leave after `PROCESS_LEASE_SECONDS` and this.")
    PRESENCE_MEMBERS = Setting(100, "users",
        "On a topic with more, only the number of connections is told, and no users.")
    PRESENCE_COUNT_SECONDS = Setting(5.0, "seconds",
        "That number is told at most this often.")
    PRESENCE_INFO_BYTES = Setting(512, "bytes of JSON, UTF-8",
        "What `PRESENCE_INFO` returns for a user. Of one with more the others see nothing, and the "
        "log has a warning; the connections count.")

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
        "Refused, but for `rate_limited` ones, after which the socket is closed with 4400.")
    INBOX_MESSAGES = Setting(32, "messages",
        "Waiting messages after which no more is read, on servers other than `realtime.server`.")
    HANDLER_GRACE_SECONDS = Setting(0.9, "seconds",
        "A handler that runs this long after its peer left is cancelled.")

    # Metrics
    METRICS_DIR = Setting("", "path",
        "The folder in which each process of this host has a file of its numbers, so that "
        "`/metrics` tells of all, and counts outlive their process. Made with mode 0700; of this "
        "host alone, as a folder of `/dev/shm`. Empty: of the process that answers.")
    METRICS_PUBLIC = Switch(False, "True or False",
        "Whether anybody may read `/metrics`, and not staff alone. [metrics.md](metrics.md) has "
        "what it tells.")

    # Limits
    RATE_MESSAGES = RateSetting("100/s burst 300",
        "Of messages on one WebSocket, before they are parsed. One over it gets the error "
        "`rate_limited` with `retry_after`, in seconds; the socket stays. [limits.md](limits.md).")
    RATE_PUBLISHES = RateSetting("50/s burst 150", "Of publications on one WebSocket; as above.")
    RATE_SUBSCRIBES = RateSetting("20/s burst 100", "Of subscriptions on one `/ws`; as above.")
    RATE_AUTHENTICATES = RateSetting("1/s burst 5", "Of `authenticate` on one socket; as above.")
    RATE_PUBLISHES_PER_USER = RateSetting("100/s burst 500",
        "Of publications by WebSocket and POST, each event of a batch; those by access token are "
        "not the user's. Over it: the error `rate_limited`, or HTTP 429 with Retry-After. A batch "
        "over the burst is 413.")
    RATE_PUBLISHES_PER_TOKEN = RateSetting("1000/s burst 10000", "Of one access token; as above.")
    RATE_PUBLISHES_PER_ADDRESS = RateSetting(None,
        "Of one IP address, of IPv6 its /64, also of who is not signed in. Behind a proxy that is "
        "the client's only with `--proxy-headers`. [limits.md](limits.md).")
    RATE_TOPICS_PER_USER = RateSetting("10/s burst 500",
        "Of publications that made a new topic; over it, those to topics that exist go through.")
    RATE_TOPICS_PER_TOKEN = RateSetting("100/s burst 10000", "As above.")
    RATE_TOPICS_PER_ADDRESS = RateSetting(None, "As above.")
    RATE_OPENS_PER_USER = RateSetting("10/s burst 200",
        "Of WebSockets and event streams of topics that are opened, and tickets; else HTTP 429.")
    RATE_OPENS_PER_TOKEN = RateSetting("100/s burst 5000", "As above.")
    RATE_OPENS_PER_ADDRESS = RateSetting(None, "As above.")
    MAX_CONNECTIONS_PER_USER = Most(50, "connections",
        "WebSockets and event streams of topics that are open at once, but for those by access "
        "token. A further one gets HTTP 429 with Retry-After; where the first message brings the "
        "token, 4429.")
    MAX_CONNECTIONS_PER_TOKEN = Most(1_000, "connections", "As above.")
    MAX_CONNECTIONS_PER_ADDRESS = Most(None, "connections", "As above.")
    HAMMERING_REFUSALS = Setting(20, "messages",
        "So many that come within `HAMMERING_SECONDS`, each earlier than the `retry_after` of the "
        "one before, or refusals at ten times a rate: the WebSocket is closed with 4429.")
    HAMMERING_SECONDS = Setting(5.0, "seconds", "See above.")
    HAMMERING_BACK_SECONDS = Setting(30.0, "seconds",
        "For so long the user or token that was closed so opens no WebSocket or event stream from "
        "the same address, in this process: HTTP 429 with Retry-After.")
    HOLD_BACK_SECONDS = Setting(1.0, "seconds",
        "Until a WebSocket's handshake gets its HTTP 429, of 1,000 at a time. 0: at once.")
    RATE_FOR = DottedPath(None, "dotted path",
        "`async def rate(identity, action) -> str | None`: another rate for staff or plans than "
        "the setting named `action`; `None`: that one counts.", is_nullable=True)

    # Identities
    PERMISSION = DottedPath("realtime.access.permissions.default_rule", "dotted path",
        "`async def rule(user, topic, action) -> bool`. Only `True` permits; a rule that raises "
        "denies.")
    PRESENCE_INFO = DottedPath("realtime.access.user_info.default_info", "dotted path",
        "`async def info(user) -> dict | None`: what others see of who publishes (`sender`), for "
        "each event, and of who is there, for each connection. `None`: nothing.", is_nullable=True)
    ALLOWED_ORIGINS = Origins([], "origins",
        'Besides the same origin (scheme, host, port): `"https://app.example.com"`, lower case and '
        'without a path, or `"*"`: any page, and then its session cookie does not count. Others '
        "get HTTP 403.")
    RECHECK_SECONDS = Setting(30.0, "seconds",
        "The rights of live connections are checked this often, besides at once when a user or "
        "token changes.")
    IDENTITY_CACHE_SECONDS = Setting[float | None](5.0, "seconds",
        "A process trusts what it has looked up for this long, while it hears of changed users and "
        "tokens at once. `None`: every request is looked up.", is_nullable=True)
    TICKET_SECONDS = Setting(30, "seconds", "Life of a single-use ticket; then 401.")
    TOKEN_DAYS = Setting[int | None](90, "days",
        "A token made in the admin ends after so long, unless another end, or that it never ends, "
        "is chosen. `None`: it never ends, unless an end is chosen.", is_nullable=True)
    TOKEN_GRACE_SECONDS = Setting(86_400, "seconds",
        "A token that was rotated, by the admin or `createtoken --rotate`, goes on for this long "
        "beside the new one.")
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
