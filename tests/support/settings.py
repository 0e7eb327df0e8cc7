"""The least that `realtime` needs of a site."""

import dj_database_url

from .databases import ON_MARIADB, ON_POSTGRESQL, directory, new_database_url

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "realtime",
    "realtime.llm",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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
ROOT_URLCONF = "tests.support.urls"
ASGI_APPLICATION = "tests.support.asgi.application"
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": dj_database_url.parse(new_database_url())}
if ON_POSTGRESQL:
    # More than a site's: the shared threads of one test keep theirs while the next has its own.
    from realtime import WatchedConnection

    pool = {"connection_class": WatchedConnection, "min_size": 0, "max_size": 24}
    DATABASES["default"]["OPTIONS"] = {"pool": pool}
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
elif ON_MARIADB:
    DATABASES["default"]["OPTIONS"] = {"init_command": "SET time_zone = '+00:00'"}
    DATABASES["default"]["TEST"] = {"CHARSET": "utf8mb4"}
else:
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;",
    }
    # In a file: what runs in other threads has to see it.
    DATABASES["default"]["TEST"] = {"NAME": str(directory() / "test.sqlite3")}
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
REALTIME: dict[str, object] = {}
