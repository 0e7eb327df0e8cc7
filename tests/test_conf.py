"""`realtime.conf`: one table of defaults, one accessor; and its page in the documentation."""

import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from realtime.access.permissions import default_rule
from realtime.conf import DEFAULTS, DOTTED_PATHS, NULLABLE, settings
from realtime.eventlog.database import DatabaseLog
from realtime.exceptions import RealtimeConfigurationError

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "settings.md"


@pytest.mark.parametrize("name", sorted(set(DEFAULTS) - DOTTED_PATHS))
def test_defaults(name):
    with override_settings(REALTIME={}):
        assert getattr(settings, name) == DEFAULTS[name]


def test_a_site_may_have_no_settings_at_all():
    with override_settings():
        from django.conf import settings as django_settings

        del django_settings.REALTIME
        settings.reset()
        assert DEFAULTS["MAX_TOPICS"] == settings.MAX_TOPICS


def test_dotted_paths_come_imported():
    assert settings.EVENT_LOG is DatabaseLog
    assert settings.PERMISSION is default_rule


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
    with pytest.raises(AttributeError, match="REALTIME has no setting 'MAX_TOPIC'"):
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


def test_the_tables_agree():
    assert set(DEFAULTS) >= DOTTED_PATHS
    assert set(DEFAULTS) >= NULLABLE


def documented(heading: str) -> dict[str, list[str]]:
    """The rows of the tables below a heading of docs/settings.md, by the name in the first cell."""
    section = DOCS.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    assert len({row[0] for row in rows}) == len(rows), "a name is documented twice"
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_setting_is_documented_with_its_default():
    rows = documented("The `REALTIME` dict")
    assert sorted(rows) == sorted(DEFAULTS)
    wrong = {
        name: row[0] for name, row in rows.items() if row[0].strip("`") != written(DEFAULTS[name])
    }
    assert wrong == {}
    assert all(len(row) == 3 and row[2] for row in rows.values())


def written(value: object) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value)


def test_every_environment_variable_is_documented():
    source = (ROOT / "project" / "settings.py").read_text()
    read = re.findall(r'(?:environ\.get\(|environ\[|flag\(|words\()\s*"([A-Z_]+)"', source)
    assert "DATABASE_URL" in read
    assert sorted(set(read) - set(documented("The environment"))) == []
