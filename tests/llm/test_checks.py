"""`realtime.llm.checks`: the settings of language models, and a provider that can be loaded."""

import pytest
from django.test import override_settings

from ..test_checks import ids, run


@pytest.mark.parametrize(
    "given", ["offline", "dummy", "realtime.llm.providers.dummy.DummyProvider", print]
)
def test_e009_a_provider_that_is_there(given):
    assert ids(REALTIME={"LLM_PROVIDER": given}) == []


@pytest.mark.parametrize("given", ["", "off", "nowhere.Provider", "realtime.nowhere.Provider"])
def test_e009_a_provider_that_is_nowhere(given):
    assert ids(REALTIME={"LLM_PROVIDER": given}) == ["realtime.E009"]


def test_e009_an_sdk_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("realtime.llm.checks.SDKS", frozenset({"not_installed"}))
    monkeypatch.setattr(
        "realtime.llm.checks.provider_path", lambda name: "realtime.llm.provider.Provider"
    )
    with override_settings(REALTIME={"LLM_PROVIDER": "not_installed"}):
        (message,) = run()
    assert (message.id, message.hint) == ("realtime.E009", "pip install not_installed")


def test_a_wrong_key_is_not_shown():
    with override_settings(REALTIME={"LLM_API_KEY": ["sk-very-secret"]}):
        (message,) = run()
    assert message.id == "realtime.E003"
    assert "sk-very-secret" not in str(message)


def test_e002_an_unknown_key_among_those_of_language_models():
    with override_settings(REALTIME={"LLM_MAX_TOKEN": 1}):
        [message] = run()
    assert (message.id, message.hint) == ("realtime.E002", "Did you mean 'LLM_MAX_TOKENS'?")
