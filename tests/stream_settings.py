"""The tests' site with views that stream in ways the demo does not."""

from .site_settings import *  # noqa: F403

ROOT_URLCONF = "tests.stream_urls"
