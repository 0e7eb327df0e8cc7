"""What the app does when a server starts; what it registers is tried by its own tests."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from realtime.apps import load_urls, report_layer
from realtime.server import lifespan as startup

from .support.servers import ROOT


def test_a_worker_has_imported_its_urls_before_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    (tmp_path / "urls_of_a_site.py").write_text("urlpatterns = []")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ROOT_URLCONF = "urls_of_a_site"
    assert "urls_of_a_site" not in sys.modules
    assert load_urls in startup.CALLBACKS
    load_urls()
    assert "urls_of_a_site" in sys.modules
    monkeypatch.delitem(sys.modules, "urls_of_a_site")


def test_a_site_without_urls_is_none_of_its_business(settings: Any) -> None:
    del settings.ROOT_URLCONF
    load_urls()


@pytest.mark.parametrize(("workers", "count"), [("1", 0), ("2", 1)])
def test_a_worker_that_does_not_reach_the_others_says_so(
    workers: str, count: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert report_layer in startup.CALLBACKS
    monkeypatch.setenv("REALTIME_WORKERS", workers)
    report_layer()
    assert caplog.text.count("2 workers, and a channel layer that does not leave") == count


LAZY = """
import asyncio, os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from realtime.server import lifespan as startup
from realtime.server import request_threads as threads

def others(**kwargs):
    pass

request_started.connect(others)
before = request_started._live_receivers(ASGIHandler)[0]
assert {reset_queries, close_old_connections, others} <= set(before)
for _ in range(2):  # once is enough, and twice no harm
    startup.run()
assert request_started._live_receivers(ASGIHandler)[0] == [others], "the site's own stay"
assert threads.BEFORE_USE == [reset_queries, close_old_connections]
print("fine")
"""


def test_in_a_server_threads_are_prepared_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
