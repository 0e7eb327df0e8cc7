"""The tests' site with views that stream in ways the demo does not."""

from .settings import *  # noqa: F403

ROOT_URLCONF = "tests.support.site.stream_urls"
