"""The site's settings, from the environment (see docs/settings.md)."""

import os
import sys
import tempfile
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from project.sqlite import OwnerOnlyConnection

BASE_DIR = Path(__file__).resolve().parent.parent


def flag(name: str, default: bool = False) -> bool:
    """A variable that is on for 1, true, yes, on; off for 0, false, no, off or empty."""
    value = os.environ.get(name, str(default)).strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off", ""):
        return False
    raise ImproperlyConfigured(f"{name}={value!r}: use 1 or 0.")


def words(name: str) -> list[str]:
    """A variable that is a list, separated by commas."""
    return [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]


DATA_DIR = Path(os.environ.get("DATA_DIR", BASE_DIR / "var")).resolve()
FILES_DIR = Path(os.environ.get("FILES_DIR", DATA_DIR / "files")).resolve()
try:
    tempfile.gettempdir()
except FileNotFoundError:  # of long request bodies, and of the embedded Valkey's socket
    DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.tempdir = str(DATA_DIR)
DEBUG = flag("DEBUG")
DEMO = flag("DEMO")  # set by `manage.py demo`: one-click sign-in, loopback only
SECRET_KEY = os.environ.get("SECRET_KEY", "")
SECRET_KEY_FALLBACKS = words("SECRET_KEY_FALLBACKS")
# Whether the site is reached without TLS, so that what is secret crosses a wire in the clear.
PLAIN_HTTP = flag("PLAIN_HTTP", DEBUG or DEMO)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not PLAIN_HTTP
# Below which path of its host the site is, as "/app"; proxies pass it on.
ROOT_PATH = os.environ.get("ROOT_PATH", "").strip("/")
ROOT_PATH = f"/{ROOT_PATH}" if ROOT_PATH else ""
FORCE_SCRIPT_NAME = ROOT_PATH or None
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = ROOT_PATH or "/"  # not other sites' of that host
SECURE_HSTS_SECONDS = 0 if PLAIN_HTTP else int(os.environ.get("HSTS_SECONDS", 30 * 86_400))
SECURE_SSL_REDIRECT = flag("SSL_REDIRECT")  # deploy/nginx.conf does it in front
# Other sub-domains, and the browsers' own list, are for the owner of the whole domain to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
ALLOWED_HOSTS = words("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")
if DEMO or DEBUG:
    ALLOWED_HOSTS += ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    # Before staticfiles, for its runserver. Without "daphne", which imports Twisted: commands and
    # the supervisor start in half the time.
    "realtime",
    "realtime.llm",
    "project.demo",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "realtime.middleware.HealthMiddleware",  # for any Host, and without TLS
    "project.loopback.plain_cookies",
    # Django's own, without a thread hop each; Django's work here too.
    "realtime.middleware.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "realtime.middleware.SessionMiddleware",
    "realtime.middleware.CommonMiddleware",
    "realtime.middleware.CsrfViewMiddleware",
    "realtime.middleware.AuthenticationMiddleware",
    "realtime.middleware.MessageMiddleware",
    "realtime.middleware.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

if not os.environ.get("DATABASE_URL"):
    # SQLite makes its file, but no folder.
    DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL") or f"sqlite:///{DATA_DIR / 'db.sqlite3'}"
    )
}
named = DATABASES["default"].get("OPTIONS", {})  # in the URL's query; they win over these
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Kept open by the server's few threads: the last one to close a WAL database checkpoints it.
    DATABASES["default"]["CONN_MAX_AGE"] = None
    DATABASES["default"]["OPTIONS"] = {
        "factory": OwnerOnlyConnection,  # every user of the machine may read what SQLite makes
        # Writers queue at BEGIN instead of failing in the middle; readers never wait for them.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds a writer waits for another
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    } | named
elif DATABASES["default"]["ENGINE"].endswith("postgresql"):
    from realtime import WatchedConnection

    # A pool: threads come and go under ASGI, connections should not. One that the server has
    # dropped is noticed before it is used, one that has fallen silent when it does not answer.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,  # seconds, as all that follow
        # Of a host that is gone: probes of a connection that waits, and bytes not acknowledged.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,  # in milliseconds
        # The time-out is what a request waits while PostgreSQL is gone.
        "pool": {
            "connection_class": WatchedConnection,
            "min_size": 0,
            "max_size": int(os.environ.get("DATABASE_POOL", "12")),
            "timeout": 5,
            # Afterwards the next call begins a new try at once; the pauses between the tries
            # of one grow with the time that PostgreSQL is gone.
            "reconnect_timeout": 3,
        },
    } | named
    # A migration takes what it takes.
    limit = int(os.environ.get("DATABASE_STATEMENT_SECONDS", 60))
    if limit and sys.argv[1:2] != ["migrate"]:
        DATABASES["default"]["OPTIONS"].setdefault(
            "options",
            f"-c statement_timeout={limit}s -c idle_in_transaction_session_timeout={limit}s",
        )
elif DATABASES["default"]["ENGINE"].endswith("mysql"):
    DATABASES["default"]["CONN_MAX_AGE"] = None  # kept open by the server's few threads
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "SET time_zone = '+00:00'",  # of the database's clock; Django writes UTC
        "connect_timeout": 5,
        "read_timeout": 30,  # seconds without a byte of an answer, a lock's wait among them
        "write_timeout": 30,
    } | named
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = os.environ.get("REDIS_URL", "")
CHANNEL_LAYER = os.environ.get("CHANNEL_LAYER") or ("redis-pubsub" if REDIS_URL else "memory")
# Whoever can write to Redis can neither forge an event nor read one.
ENCRYPTION = {
    "serializer_format": "aes-gcm",
    "symmetric_encryption_keys": [SECRET_KEY, *SECRET_KEY_FALLBACKS],
}
LAYERS = {
    "memory": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    "redis": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # The layer asks Redis to wait 5 s for a message; redis-py 8 by default waits no longer than
        # that for an answer, and would call an idle layer broken.
        "CONFIG": {
            "hosts": [{"address": REDIS_URL, "socket_timeout": 15.0}],
            **ENCRYPTION,
        },
    },
    "redis-pubsub": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], **ENCRYPTION},
    },
}
if CHANNEL_LAYER not in LAYERS:
    raise ImproperlyConfigured(f"CHANNEL_LAYER={CHANNEL_LAYER!r}: use {', '.join(LAYERS)}.")
if CHANNEL_LAYER.startswith("redis") and not REDIS_URL:
    raise ImproperlyConfigured(f"CHANNEL_LAYER={CHANNEL_LAYER} needs REDIS_URL.")
CHANNEL_LAYERS = {"default": LAYERS[CHANNEL_LAYER]}

REALTIME: dict[str, object] = {"ALLOWED_ORIGINS": words("ALLOWED_ORIGINS")}
REALTIME["TOPICS"] = {pattern: {"PRESENCE": True} for pattern in ("room.*", "user.*")}
REALTIME["BUS"] = os.environ.get("BUS") or "channels"
REALTIME["NOTIFY_DATABASE_URL"] = os.environ.get("NOTIFY_DATABASE_URL", "")
REALTIME["NATS_URL"] = os.environ.get("NATS_URL", "")
REALTIME["REDIS_BUS_URL"] = REDIS_URL
if not flag("LIMITS", True):
    REALTIME |= dict.fromkeys(
        ("RATE_MESSAGES", "RATE_PUBLISHES", "RATE_SUBSCRIBES", "RATE_AUTHENTICATES")
    )
    for key in ("USER", "TOKEN", "ADDRESS"):
        names = ("RATE_PUBLISHES", "RATE_TOPICS", "RATE_OPENS", "MAX_CONNECTIONS")
        REALTIME |= dict.fromkeys(f"{name}_PER_{key}" for name in names)
LOGS = {
    "database": "realtime.eventlog.database.DatabaseLog",
    "redis": "realtime.eventlog.redis.log.RedisLog",
    "memory": "realtime.eventlog.memory.MemoryLog",
}
EVENT_LOG = os.environ.get("EVENT_LOG") or "database"
if EVENT_LOG not in LOGS:
    raise ImproperlyConfigured(f"EVENT_LOG={EVENT_LOG!r}: use {', '.join(LOGS)}.")
REALTIME["EVENT_LOG"] = LOGS[EVENT_LOG]
if EVENT_LOG == "redis":
    REALTIME["REDIS_LOG_URL"] = os.environ.get("REDIS_LOG_URL") or REDIS_URL
    if not REALTIME["REDIS_LOG_URL"]:
        raise ImproperlyConfigured("EVENT_LOG=redis needs REDIS_LOG_URL or REDIS_URL.")
    REALTIME["REDIS_LOG_TRUST_RESTART"] = flag("REDIS_LOG_TRUST_RESTART")

REALTIME["METRICS_DIR"] = str(DATA_DIR / "metrics")
REALTIME["METRICS_PUBLIC"] = flag("METRICS_PUBLIC")

# The language model behind /chat: the named provider, or the one whose key is there.
LLM_PROVIDER = os.environ.get("LLM_PROVIDER", "")
if not LLM_PROVIDER:
    if os.environ.get("ANTHROPIC_API_KEY"):
        LLM_PROVIDER = "anthropic"
    elif os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        LLM_PROVIDER = "openai"
    else:
        LLM_PROVIDER = "offline"
REALTIME |= {"LLM_PROVIDER": LLM_PROVIDER, "LLM_MODEL": os.environ.get("LLM_MODEL", "")}
if LLM_PROVIDER == "anthropic":
    REALTIME["LLM_API_KEY"] = os.environ.get("ANTHROPIC_API_KEY", "")
    REALTIME["LLM_BASE_URL"] = os.environ.get("ANTHROPIC_BASE_URL", "")
elif LLM_PROVIDER == "openai":
    REALTIME["LLM_API_KEY"] = os.environ.get("OPENAI_API_KEY", "")
    REALTIME["LLM_BASE_URL"] = os.environ.get("OPENAI_BASE_URL", "")

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "demo"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = f"{ROOT_PATH}/static/"
STATIC_ROOT = DATA_DIR / "static"
SERVESTATIC_USE_FINDERS = True  # no collectstatic needed; nginx may still serve STATIC_ROOT

LOG_FORMAT = os.environ.get("LOG_FORMAT") or "text"
FORMATTERS: dict[str, dict[str, str]] = {
    "text": {"format": "{asctime} {levelname} {name} {message}", "style": "{"},
    "json": {"()": "realtime.JSONFormatter"},
}
if LOG_FORMAT not in FORMATTERS:
    raise ImproperlyConfigured(f"LOG_FORMAT={LOG_FORMAT!r}: use {', '.join(FORMATTERS)}.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": FORMATTERS,
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    # A line for the end of each connection.
    "loggers": {"realtime.connections": {"level": "INFO" if LOG_FORMAT == "json" else "WARNING"}},
    "root": {"handlers": ["console"], "level": os.environ.get("LOG_LEVEL", "INFO")},
}
