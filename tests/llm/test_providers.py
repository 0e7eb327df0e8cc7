"""`realtime.llm.providers`: who answers is one setting, loaded when it is needed."""

import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest
from django.test import override_settings

from realtime.exceptions import ProviderUnavailable
from realtime.llm import providers
from realtime.llm.providers import SHORT_NAMES, get_provider, preload
from realtime.llm.providers.dummy import DummyProvider
from realtime.llm.providers.offline import OfflineProvider
from tests.support.clients import bearer
from tests.support.servers import ROOT, manage
from tests.support.sites import site_for_module


async def test_offline_is_what_there_is_without_settings():
    with override_settings(REALTIME={}):
        assert isinstance(await get_provider(), OfflineProvider)


async def test_one_for_all_requests_until_the_settings_change():
    with override_settings(REALTIME={"LLM_PROVIDER": "offline"}):
        first = await get_provider()
        assert await get_provider() is first
    with override_settings(REALTIME={"LLM_PROVIDER": SHORT_NAMES["dummy"]}):
        assert isinstance(await get_provider(), DummyProvider)


def broken() -> DummyProvider:
    raise ValueError("sk-very-secret is no key")


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        ("nowhere.Provider", "No module named 'nowhere'"),
        ("realtime.llm.providers.dummy.Nothing", "Nothing"),
        (broken, "ValueError"),
        (lambda: 7, "TypeError"),
    ],
)
async def test_one_that_can_not_be_had_is_tried_again(given, logged, caplog):
    with override_settings(REALTIME={"LLM_PROVIDER": given}):
        for _ in range(2):
            with pytest.raises(ProviderUnavailable, match="not set up"):
                await get_provider()
    assert caplog.text.count(logged) >= 2
    assert "sk-very-secret" not in caplog.text


async def test_what_it_keeps_is_closed_with_the_loop():
    closed = []

    class Keeping(DummyProvider):
        async def aclose(self):
            closed.append(self)

    with override_settings(REALTIME={"LLM_PROVIDER": Keeping}):
        provider = await get_provider()
    await __import__("asyncio").get_running_loop().shutdown_asyncgens()
    assert closed == [provider]


def test_the_app_works_without_any_sdk():
    code = """
import sys
sys.modules["anthropic"] = sys.modules["openai"] = None
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.settings"
django.setup()
import realtime.llm.generation, realtime.llm.answer_stream
try:
    import realtime.llm.providers.anthropic
except ImportError:
    print("as expected")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "as expected", done.stderr


# -- before the first request

NOTED = "tests.llm.noted_provider.Noted"


async def test_what_was_preloaded_serves_the_first_loop():
    with override_settings(REALTIME={"LLM_PROVIDER": DummyProvider}):
        preload()
        prepared = providers._prepared[providers._wanted()]
        assert await get_provider() is prepared
        assert providers._wanted() not in providers._prepared
    with override_settings(REALTIME={"LLM_PROVIDER": lambda: DummyProvider()}):
        assert await get_provider() is not prepared


class Flaky:
    """Makes a provider, but the first two times it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> DummyProvider:
        self.asked += 1
        return broken() if self.asked <= 2 else DummyProvider()


@pytest.mark.parametrize(("given", "logged"), [("nowhere.It", "nowhere"), (Flaky(), "ValueError")])
async def test_one_that_can_not_be_preloaded_is_tried_again(given, logged, caplog, monkeypatch):
    with override_settings(REALTIME={"LLM_PROVIDER": given}):
        preload()
        assert caplog.text.count(logged) >= 1
        assert "sk-very-secret" not in caplog.text
        with pytest.raises(ProviderUnavailable):
            await get_provider()
        monkeypatch.setitem(sys.modules, "nowhere", SimpleNamespace(It=DummyProvider))
        assert isinstance(await get_provider(), DummyProvider)


def test_a_worker_is_ready_when_its_provider_is(template, tmp_path):
    notes = tmp_path / "notes"
    more = {"LLM_PROVIDER": NOTED, "NOTES": str(notes)}
    with site_for_module(template, {}, "--workers", "2", **more) as site:
        lines = notes.read_text().split("\n")[:-1]
        by_process = {line.split()[1] for line in lines}
        assert len(by_process) == 2, "the workers, and nobody else"
        assert sorted(line.split()[0] for line in lines) == ["imported"] * 2 + ["made"] * 2
        headers = bearer(site.tokens["alice"])
        answer = httpx.get(f"{site.url}/chat?prompt=Hello", headers=headers)
        assert '"token": "Hello"' in answer.text
        lines = notes.read_text().split("\n")[:-1]
        assert sorted(line.split()[0] for line in lines)[0] == "asked"
        assert len(lines) == 5, "the one that was made is the one that was asked"
        notes.unlink()
        manage("prune_events", env={**site.env})
        assert not notes.exists(), "a command asks no model"
