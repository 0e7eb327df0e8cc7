"""What the app does when a server starts; what it registers is tried by its own tests."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from realtime.apps import load_urls

from .support.servers import ROOT, environment


def test_urls_of_a_site_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    (tmp_path / "urls_of_a_site.py").write_text("urlpatterns = []")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ROOT_URLCONF = "urls_of_a_site"
    assert "urls_of_a_site" not in sys.modules
    load_urls()
    assert "urls_of_a_site" in sys.modules
    monkeypatch.delitem(sys.modules, "urls_of_a_site")


def test_a_site_without_urls_is_none_of_its_business(settings: Any) -> None:
    del settings.ROOT_URLCONF
    load_urls()


LAZY = """
import os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.settings"
django.setup()
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from realtime.apps import on_startup
from realtime.server.request_threads import RequestThreads

class Server:
    request_threads = RequestThreads(1)

def others(**kwargs):
    pass

request_started.connect(others)
before = request_started._live_receivers(ASGIHandler)[0]
assert {reset_queries, close_old_connections, others} <= set(before)
assert django.conf.settings.ROOT_URLCONF not in sys.modules
for _ in range(2):  # once is enough, and twice no harm
    on_startup(Server())
assert django.conf.settings.ROOT_URLCONF in sys.modules
assert request_started._live_receivers(ASGIHandler)[0] == [others], "the site's own stay"
assert Server.request_threads.before_use == [reset_queries, close_old_connections]
print("fine")
"""


def test_a_server_has_urls_before_it_is_ready_and_prepares_threads_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_a_command_of_the_project_imports_no_twisted() -> None:
    """It takes as long as all the rest."""
    code = (
        "import sys, django\n"
        "django.setup()\n"
        "import realtime.management.commands.serve\n"
        "print([name for name in sys.modules if name.startswith('twisted')])\n"
    )
    env = environment({"DJANGO_SETTINGS_MODULE": "project.settings"})
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr


WITHOUT_CHANNELS_REDIS = """
import sys, django
from django.conf import settings
from django.core.checks import run_checks
sys.modules["channels_redis"] = None
settings.configure(
    INSTALLED_APPS=["realtime", "django.contrib.auth", "django.contrib.contenttypes"],
    CHANNEL_LAYERS={"default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"serializer_format": "aes-gcm", "symmetric_encryption_keys": ["a secret"]},
    }},
)
django.setup()
print([message.id for message in run_checks(tags=["realtime"]) if message.is_serious()])
"""


def test_a_site_without_the_packages_of_its_layer_is_told_by_the_checks() -> None:
    command = [sys.executable, "-c", WITHOUT_CHANNELS_REDIS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "realtime.E010" in done.stdout, done.stderr
