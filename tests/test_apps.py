"""What the app does when a server starts; what it registers is tried by its own tests."""

import sys
from pathlib import Path
from typing import Any

import pytest

from realtime.apps import load_urls
from realtime.server import lifespan as startup


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
