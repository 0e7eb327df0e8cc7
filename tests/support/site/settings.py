"""The project's settings, with what a test shortens: `TEST_REALTIME` is a JSON object."""

import json
import os

from project.settings import *  # noqa: F403
from project.settings import DATABASES, MIDDLEWARE, REALTIME

REALTIME = {**REALTIME, **json.loads(os.environ.get("TEST_REALTIME", "{}"))}
ROOT_URLCONF = "tests.support.site.urls"
ASGI_APPLICATION = "tests.support.site.asgi.application"
MIDDLEWARE = [*MIDDLEWARE, *json.loads(os.environ.get("TEST_MIDDLEWARE", "[]"))]
# A hash of the usual kind takes half a second of the processor.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if pool := DATABASES["default"].get("OPTIONS", {}).get("pool"):
    # A thread waits this long for a database that is gone, and a server that stops for its threads.
    pool["timeout"] = 2
DATABASES["default"]["ATOMIC_REQUESTS"] = "TEST_ATOMIC_REQUESTS" in os.environ
if os.environ.get("PROXIED"):  # a proxy of the tests ends TLS in front of it
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
