"""The project's settings, with what a test shortens: `TEST_REALTIME` is a JSON object."""

import json
import os

from project.settings import *  # noqa: F403
from project.settings import MIDDLEWARE, REALTIME

REALTIME = {**REALTIME, **json.loads(os.environ.get("TEST_REALTIME", "{}"))}
ROOT_URLCONF = "tests.site_urls"
ASGI_APPLICATION = "tests.site_asgi.application"
MIDDLEWARE = [*MIDDLEWARE, *json.loads(os.environ.get("TEST_MIDDLEWARE", "[]"))]
