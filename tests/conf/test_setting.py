"""`realtime.conf`: one table of defaults, one accessor; and its page in the documentation."""

import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.module_loading import import_string

from realtime.access.permissions import default_rule
from realtime.conf import Settings, settings
from realtime.conf.rate import RateSetting
from realtime.conf.setting import MOVED_PATHS, DottedPath, Setting
from realtime.conf.topic_patterns import TOPIC_KEYS, TopicPatterns
from realtime.eventlog.database import DatabaseLog
from realtime.exceptions import RealtimeConfigurationError
from realtime.llm import conf as llm_conf

from ..support import pages

ROOT = Path(__file__).resolve().parent.parent.parent


MADE = (DottedPath, RateSetting, TopicPatterns)  # what the code gets is made of what is written
PLAIN = sorted(n for n, s in Settings.table().items() if not isinstance(s, MADE))


@pytest.mark.parametrize("name", PLAIN)
def test_defaults(name):
    with override_settings(REALTIME={}):
        assert getattr(settings, name) == Settings.table()[name].default


def test_a_site_may_have_no_settings_at_all():
    with override_settings():
        from django.conf import settings as django_settings

        del django_settings.REALTIME
        settings.reset()
        assert Settings.MAX_TOPICS.default == settings.MAX_TOPICS


@pytest.mark.parametrize("name", [name for name in Settings.table() if "URL" in name])
def test_a_wrong_value_that_may_have_a_password_is_not_shown(name):
    message, hint = Settings.table()[name].find_problem([b"://user:secret@host"])
    assert "secret" not in message + hint


def test_dotted_paths_come_imported():
    assert settings.EVENT_LOG is DatabaseLog
    assert settings.PERMISSION is default_rule


@pytest.mark.parametrize("old", [path for path in MOVED_PATHS if ".llm." not in path])
def test_a_path_of_an_earlier_release_leads_to_what_has_moved(old):
    with override_settings(REALTIME={"EVENT_LOG": old}):
        assert settings.EVENT_LOG is import_string(MOVED_PATHS[old])


@pytest.mark.parametrize("old", [path for path in MOVED_PATHS if ".llm." in path])
def test_so_does_that_of_a_provider(old):
    with override_settings(REALTIME={"LLM_PROVIDER": old}):
        assert MOVED_PATHS[old] == llm_conf.settings.LLM_PROVIDER
    assert import_string(MOVED_PATHS[old])


def test_what_is_no_string_is_taken_as_it_is():
    async def rule(user, topic, action):
        return True

    with override_settings(REALTIME={"PERMISSION": rule}):
        assert settings.PERMISSION is rule


def test_override_settings_counts_at_once_and_ends():
    assert settings.MAX_TOPICS == 50
    with override_settings(REALTIME={"MAX_TOPICS": 3}):
        assert settings.MAX_TOPICS == 3
        assert settings.KEEPALIVE_SECONDS == 15.0
        with override_settings(REALTIME={"KEEPALIVE_SECONDS": 1.0}):
            assert (settings.MAX_TOPICS, settings.KEEPALIVE_SECONDS) == (50, 1.0)
        assert (settings.MAX_TOPICS, settings.KEEPALIVE_SECONDS) == (3, 15.0)
    assert settings.MAX_TOPICS == 50


def test_another_setting_resets_nothing():
    assert settings.MAX_TOPICS == 50
    with override_settings(DEBUG=True):
        assert "MAX_TOPICS" in settings.__dict__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'MAX_TOPIC'"):
        _ = settings.MAX_TOPIC


@pytest.mark.parametrize(
    "path", ["nowhere.rule", "realtime.access.permissions.nothing", "nodots", ""]
)
def test_a_path_that_leads_nowhere(path):
    with (
        override_settings(REALTIME={"PERMISSION": path}),
        pytest.raises(RealtimeConfigurationError, match=r"REALTIME\['PERMISSION'\]") as caught,
    ):
        _ = settings.PERMISSION
    assert isinstance(caught.value, ImproperlyConfigured)
    assert isinstance(caught.value.__cause__, ImportError)


def test_it_has_to_be_a_dict():
    with (
        override_settings(REALTIME=["MAX_TOPICS"]),
        pytest.raises(RealtimeConfigurationError, match="not a dict"),
    ):
        _ = settings.MAX_TOPICS


def test_the_language_models_have_a_table_of_their_own():
    own, core = llm_conf.Settings.table(), Settings.table()
    assert all(name.startswith("LLM_") for name in own)
    assert not any(name.startswith("LLM_") for name in core)
    assert own["LLM_MAX_TOKENS"].default == llm_conf.settings.LLM_MAX_TOKENS
    assert core["MAX_TOPICS"].default == llm_conf.settings.MAX_TOPICS


@pytest.mark.parametrize("table", [Settings.table(), TOPIC_KEYS, llm_conf.Settings.table()])
def test_every_setting_says_its_unit_and_what_happens_at_the_limit(table):
    assert [name for name, each in table.items() if not (each.unit and each.help)] == []
    assert all(each.help.endswith((".", ").")) for each in table.values())
    assert [n for n, s in table.items() if s.find_problem(s.default) is not None] == []


def test_none_is_a_value_only_where_the_table_says_so():
    nullable = {name for name, each in Settings.table().items() if each.is_nullable}
    limits = {name for name in nullable if name.startswith(("RATE_", "MAX_CONNECTIONS_PER_"))}
    assert len(limits) == 17
    assert nullable - limits == {
        *("DATABASE_ANSWER_SECONDS", "IDENTITY_CACHE_SECONDS", "PRUNE_INTERVAL_SECONDS"),
        *("PRESENCE_INFO", "PROCESS_BEAT_SECONDS", "RETENTION_EVENTS", "RETENTION_SECONDS"),
        "TOKEN_DAYS",
    }
    assert isinstance(Settings.RETENTION_EVENTS, Setting)
    with override_settings(REALTIME={"RETENTION_EVENTS": None}):
        assert settings.RETENTION_EVENTS is None


def test_the_page_is_made_from_the_tables():
    """`python -m tests.support.pages` writes it again."""
    assert pages.PAGE.read_text() == pages.with_tables(pages.PAGE.read_text())


def test_every_environment_variable_is_documented():
    source = (ROOT / "project" / "settings.py").read_text()
    read = re.findall(r'(?:environ\.get\(|environ\[|flag\(|words\()\s*"([A-Z_]+)"', source)
    assert "DATABASE_URL" in read
    documented = re.findall(r"^\| `([A-Z_]+)` \|", pages.PAGE.read_text(), re.M)
    assert sorted(set(read) - set(documented)) == []
