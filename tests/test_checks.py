"""`realtime.checks`: each id fires, and is silent when all is right."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from channels.sessions import SessionMiddlewareStack
from django.conf import settings
from django.contrib.auth.models import User
from django.core import checks
from django.db import connections
from django.test import override_settings
from django.urls import path
from django.utils import timezone

from realtime import checks as our_checks
from realtime.conf.setting import MOVED_PATHS
from realtime.llm.models import Generation
from realtime.models import Event
from realtime.websocket.consumers import WebSocketConsumer
from realtime.websocket.topic_consumers import TopicConsumer

from .support.servers import environment

ROOT = Path(__file__).resolve().parent.parent


def ids(**settings: object) -> list[str]:
    """The ids of what the registered checks find with these of Django's settings."""
    with override_settings(**settings):
        return [message.id for message in run()]


def run() -> list[checks.CheckMessage]:
    found = checks.run_checks(tags=["realtime"])
    assert all(message.hint for message in found), "a message without a hint"
    return found


def test_silent_with_the_settings_of_these_tests():
    assert run() == []


# -- realtime.E001 to E003, E006 to E008: the settings dict


@pytest.mark.parametrize("value", [None, [], "MAX_TOPICS", [("MAX_TOPICS", 1)]])
def test_e001_not_a_dict(value):
    assert ids(REALTIME=value) == ["realtime.E001"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MAX_TOPIC", "Did you mean 'MAX_TOPICS'?"),
        ("KEEPALIVE", "Did you mean 'KEEPALIVE_SECONDS'?"),
        ("ALLOWED_ORIGIN", "Did you mean 'ALLOWED_ORIGINS'?"),
        ("PRESENCE", 'A key of topics: REALTIME = {"TOPICS": {"room.*": {"PRESENCE": ...}}}'),
        ("xyzzy", "See docs/settings.md."),
        (42, "See docs/settings.md."),
    ],
)
def test_e002_unknown_key(name, hint):
    with override_settings(REALTIME={name: 1}):
        [message] = run()
    assert (message.id, message.hint) == ("realtime.E002", hint)
    assert repr(name) in message.msg


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_TOPICS", None),
        ("MAX_TOPICS", "50"),
        ("MAX_TOPICS", 50.5),
        ("MAX_TOPICS", True),
        ("MAX_TOPICS", 0),
        ("MAX_TOPICS", -1),
        ("MAX_EVENT_BYTES", [65_536]),
        ("UNWRITABLE_ROWS", "skip"),
        ("KEEPALIVE_SECONDS", "15"),
        ("KEEPALIVE_SECONDS", 0.0),
        ("KEEPALIVE_SECONDS", float("nan")),
        ("KEEPALIVE_SECONDS", float("inf")),
        ("KEEPALIVE_SECONDS", None),
        ("RETENTION_EVENTS", 1000.5),
        ("RETENTION_SECONDS", False),
        ("RETENTION_SECONDS", "week"),
        ("RETENTION_SECONDS", 10**12),
        ("RETENTION_EVENTS", 10**400),
        ("CHANNEL_LAYER", 1),
        ("CHANNEL_LAYER", ["default"]),
        ("EVENT_LOG", 1),
        ("PERMISSION", None),
        ("PERMISSION", ["realtime.access.permissions.default_rule"]),
        ("ALLOWED_ORIGINS", None),
        ("ALLOWED_ORIGINS", "https://app.example.com"),
        ("ALLOWED_ORIGINS", [1]),
        ("ALLOWED_ORIGINS", ["app.example.com"]),
        ("ALLOWED_ORIGINS", ["https://app.example.com/"]),
        ("ALLOWED_ORIGINS", ["https://ok.example.com", "https://App.example.com"]),
        ("TOPICS", None),
        ("TOPICS", {"room.*": {"STATE": 1}}),
        ("TOPICS", {"room.*": {}, "room.a": {}}),
        ("TOPICS", {"room.*": {"RETENTION_SECONDS": 1e12}}),
    ],
)
def test_e003_wrong_value(name, value):
    assert ids(REALTIME={name: value}) == ["realtime.E003"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_TOPICS", 1),
        ("KEEPALIVE_SECONDS", 1),
        ("KEEPALIVE_SECONDS", 0.5),
        ("TICKET_SECONDS", 1.5),
        ("RETENTION_SECONDS", None),
        ("RETENTION_SECONDS", 3600.0),
        ("RETENTION_SECONDS", 100 * 365 * 86_400),
        ("RETENTION_EVENTS", None),
        ("RETENTION_EVENTS", 2**53),
        ("PRUNE_INTERVAL_SECONDS", None),
        ("IDENTITY_CACHE_SECONDS", None),
        ("CHANNEL_LAYER", "other"),
        ("EVENT_LOG", "realtime.eventlog.database.DatabaseLog"),
        ("ALLOWED_ORIGINS", []),
        ("ALLOWED_ORIGINS", ("https://app.example.com", "http://localhost:3000")),
        ("ALLOWED_ORIGINS", ["https://[::1]:8443", "capacitor://localhost", "null"]),
        ("TOPICS", {"room.*": {"RETENTION_EVENTS": 1, "STATE": True}, "*": {}}),
    ],
)
def test_right_values(name, value):
    assert ids(REALTIME={name: value}) == []


def test_each_wrong_setting_is_reported():
    wrong = {"MAX_TOPIC": 1, "MAX_TOPICS": 0, "KEEPALIVE_SECONDS": "x"}
    assert sorted(ids(REALTIME=wrong)) == ["realtime.E002", "realtime.E003", "realtime.E003"]


@pytest.mark.parametrize("name", ["EVENT_LOG", "PERMISSION"])
def test_e006_a_path_that_leads_nowhere(name):
    assert ids(REALTIME={name: "nowhere.nothing"}) == ["realtime.E006"]


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("EVENT_LOG", "realtime.log.database.DatabaseLog"),
        ("PERMISSION", "realtime.permissions.default_rule"),
        ("LLM_PROVIDER", "realtime.llm.offline.OfflineProvider"),
    ],
)
def test_w007_names_the_new_place_of_what_has_moved(name, old):
    with override_settings(REALTIME={name: old}):
        [message] = run()
    assert message.id == "realtime.W007"
    assert message.hint == f"Write {MOVED_PATHS[old]!r}."


def sync_rule(user, topic, action):
    return True


async def async_rule(user, topic, action):
    return True


class RuleObject:
    async def __call__(self, user, topic, action):
        return True


def test_e007_the_rule_has_to_be_async():
    assert ids(REALTIME={"PERMISSION": sync_rule}) == ["realtime.E007"]
    assert ids(REALTIME={"PERMISSION": "tests.test_checks.sync_rule"}) == ["realtime.E007"]
    assert ids(REALTIME={"PERMISSION": "tests.test_checks.async_rule"}) == []
    assert ids(REALTIME={"PERMISSION": RuleObject()}) == []
    assert ids(REALTIME={"RATE_FOR": sync_rule}) == ["realtime.E007"]
    assert ids(REALTIME={"RATE_FOR": async_rule}) == []


@pytest.mark.parametrize(
    "path", ["realtime.access.permissions.default_rule", "realtime.events.event.Event"]
)
def test_e008_the_log_has_to_be_one(path):
    assert ids(REALTIME={"EVENT_LOG": path}) == ["realtime.E008"]


# -- realtime.E011: the database of the log


@pytest.mark.parametrize("vendor", ["oracle", "microsoft"])
def test_e011_databases_that_work_are_named(vendor):
    with patch.object(connections["default"], "vendor", vendor):
        [message] = run()
        assert ids(REALTIME={"EVENT_LOG": "realtime.eventlog.memory.MemoryLog"}) == []
        assert ids(REALTIME={"EVENT_LOG": "nowhere.Log"}) == ["realtime.E006"]
    assert (message.id, message.level) == ("realtime.E011", checks.ERROR)
    assert f"DATABASES['default'], which is {vendor}." in message.msg
    assert "PostgreSQL, MariaDB" in str(message.hint)
    assert "SQLite 3.35" in str(message.hint)


def test_e011_sqlite_that_is_too_old():
    with (
        patch.object(connections["default"], "vendor", "sqlite"),
        patch("sqlite3.sqlite_version_info", (3, 34, 1)),
        patch("sqlite3.sqlite_version", "3.34.1"),
    ):
        [message] = run()
    assert (message.id, message.level) == ("realtime.E011", checks.ERROR)
    assert "SQLite 3.34.1" in message.msg


def test_e011_is_about_the_database_of_the_events():
    class Elsewhere:
        def db_for_write(self, model, **hints):
            return "other" if model is Event else None

    other = SimpleNamespace(vendor="oracle")
    with (
        patch.object(type(connections), "__getitem__", lambda self, alias: other),
        override_settings(DATABASE_ROUTERS=[Elsewhere()]),
    ):
        [message] = run()
    assert "DATABASES['other']" in message.msg


# -- realtime.E012: the transactions of the log


@pytest.mark.parametrize(
    ("vendors", "found"),
    [
        ({"default": "sqlite", "other": "postgresql"}, ["realtime.E012"]),
        ({"default": "unknown", "other": "postgresql"}, []),  # as Django calls an empty default
    ],
)
def test_e012_a_log_in_another_database_is_in_no_transaction_of_the_sites(vendors, found):
    class Elsewhere:
        def db_for_write(self, model, **hints):
            return "other" if model is Event else None

    def get(self, alias):
        return SimpleNamespace(vendor=vendors[alias])

    with (
        patch.object(type(connections), "__getitem__", get),
        override_settings(DATABASE_ROUTERS=[Elsewhere()]),
    ):
        messages = run()
    assert [message.id for message in messages] == found
    assert all("rolls back" in message.msg for message in messages)


# -- realtime.W001: hosts


@pytest.mark.parametrize(
    ("debug", "hosts", "found"),
    [
        (False, [], ["realtime.W001"]),
        (True, [], []),
        (False, ["example.com"], []),
    ],
)
def test_w001_hosts(debug, hosts, found):
    assert ids(DEBUG=debug, ALLOWED_HOSTS=hosts) == found


# -- realtime.W002, W003, E005: origins


class Foreign(AsyncWebsocketConsumer):
    """A consumer of plain Channels."""


class Own(WebSocketConsumer):
    """A team's own, on our base."""


class StricterValidator(OriginValidator):
    """A site's own validator."""


def site(*routes: object) -> ProtocolTypeRouter:
    return ProtocolTypeRouter({"websocket": URLRouter([path("ws", r) for r in routes])})


foreign = site(Foreign.as_asgi(), TopicConsumer.as_asgi())
own = site(Own.as_asgi(), TopicConsumer.as_asgi())
nested = site(URLRouter([path("a", URLRouter([path("b", Foreign.as_asgi())]))]))
behind_middleware = ProtocolTypeRouter(
    {"websocket": SessionMiddlewareStack(URLRouter([path("ws", Foreign.as_asgi())]))}
)
validated = ProtocolTypeRouter(
    {"websocket": AllowedHostsOriginValidator(URLRouter([path("ws", Foreign.as_asgi())]))}
)
validated_inside = site(SessionMiddlewareStack(StricterValidator(Foreign.as_asgi(), ["*"])))
http_only = ProtocolTypeRouter({"http": Foreign.as_asgi()})


other_framework = ProtocolTypeRouter(
    {"websocket": SimpleNamespace(routes=[SimpleNamespace(path="/ws", endpoint=Foreign)])}
)


async def plain(scope, receive, send):
    """Any ASGI application: nothing can be known of it."""


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("foreign", ["realtime.W003"]),
        ("nested", ["realtime.W003"]),
        ("behind_middleware", ["realtime.W003"]),
        ("own", []),
        ("validated", []),
        ("validated_inside", []),
        ("http_only", []),
        ("other_framework", []),
        ("plain", []),
        ("nowhere", ["realtime.E005"]),
    ],
)
def test_w003_a_consumer_without_origin_check(name, found):
    assert ids(ASGI_APPLICATION=f"{__name__}.{name}") == found


def test_w003_names_the_consumer():
    with override_settings(ASGI_APPLICATION=f"{__name__}.foreign"):
        [message] = run()
    assert "tests.test_checks.Foreign" in message.msg


@pytest.mark.parametrize("raised", ["KeyError('API_KEY')", "ImproperlyConfigured('no key')"])
def test_e005_says_what_the_applications_module_raises(raised, tmp_path, monkeypatch):
    name = f"asgi_{raised[:8].lower()}"
    text = f"from django.core.exceptions import ImproperlyConfigured\nraise {raised}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(ASGI_APPLICATION=f"{name}.application"):
        [message] = run()
    assert message.id == "realtime.E005"
    assert raised in message.msg


def test_a_site_without_asgi_application():
    assert ids(ASGI_APPLICATION=None) == []


def test_w002_any_origin():
    assert ids(REALTIME={"ALLOWED_ORIGINS": ["*"]}) == ["realtime.W002"]


# -- realtime.W004: retention


@pytest.mark.parametrize(
    ("seconds", "events", "found"),
    [
        (None, None, ["realtime.W004"]),
        (60, None, []),
        (None, 60, []),
    ],
)
def test_w004_retention(seconds, events, found):
    realtime = {"RETENTION_SECONDS": seconds, "RETENTION_EVENTS": events}
    assert ids(REALTIME=realtime) == found


def test_w004_retention_of_topics():
    forever = {"RETENTION_SECONDS": None, "RETENTION_EVENTS": None}
    with override_settings(REALTIME={"TOPICS": {"a": {"STATE": True}, "audit.*": forever}}):
        [message] = run()
    assert message.id == "realtime.W004"
    assert "of 'audit.*' are kept for ever" in message.msg


# -- realtime.W013: patterns that open users' own topics


@pytest.mark.parametrize(
    ("topics", "found"),
    [
        ({"*": {"READ": "users"}}, ["realtime.W013"]),
        ({"user.*": {"READ": "anyone"}}, ["realtime.W013"]),
        ({"user.*": {}, "*": {"READ": "users"}}, []),
        ({"user.*": {"READ": "staff", "PUBLISH": "nobody"}}, []),
        ({"room.*": {"READ": "anyone"}}, []),
    ],
)
def test_w013_topics_of_users(topics, found):
    assert ids(REALTIME={"TOPICS": topics}) == found


# -- realtime.W011: the lease of processes


@pytest.mark.parametrize(
    ("beat", "lease", "found"),
    [(2.0, 4.0, ["realtime.W011"]), (2.0, 4.1, []), (60.0, 10.0, ["realtime.W011"]), (None, 1, [])],
)
def test_w011_process_lease(beat, lease, found):
    realtime = {"PROCESS_BEAT_SECONDS": beat, "PROCESS_LEASE_SECONDS": lease}
    assert ids(REALTIME=realtime) == found


# -- the site


def test_check_is_clean_for_the_project():
    command = [sys.executable, "manage.py", "check", "--fail-level", "DEBUG"]
    env = environment({"DATABASE_URL": "sqlite:///:memory:"})
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no issues" in done.stdout


def test_check_for_deployment_has_one_thing_to_say_of_the_project():
    """That nothing sends plain HTTP to https: which the shipped nginx.conf does in front."""
    command = [sys.executable, "manage.py", "check", "--deploy"]
    long = "only for tests, and as long as Django wants it: 50 or more"
    env = environment({"DATABASE_URL": "sqlite:///:memory:", "SECRET_KEY": long})
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert re.findall(r"security\.W\d+", done.stderr) == ["security.W008"]
    env |= {"SSL_REDIRECT": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert "no issues" in done.stdout


def test_format_of_logs_that_is_none_is_said():
    env = environment({"DATABASE_URL": "sqlite:///:memory:", "LOG_FORMAT": "xml"})
    command = [sys.executable, "-c", "import project.settings"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert "LOG_FORMAT='xml': use text, json.\n" in done.stderr


OPTIONS = """
import sys
sys.argv[1:] = sys.argv[2:]
from project.settings import DATABASES
options = DATABASES["default"]["OPTIONS"]
print(options["sslmode"], options["connect_timeout"], options["pool"]["reconnect_timeout"])
print({name: value for name, value in options.items() if name.startswith(("keep", "tcp"))})
print("statement_timeout" in str(options))
"""
OF_A_HOST_THAT_IS_GONE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


@pytest.mark.parametrize(("command", "has_limit"), [("serve", True), ("migrate", False)])
def test_connections_and_statements_have_limits_but_migrations_none(command, has_limit):
    env = environment({"DATABASE_URL": "postgresql://db/site?sslmode=require"})
    command = [sys.executable, "-c", OPTIONS, "manage.py", command]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"require 5 3\n{OF_A_HOST_THAT_IS_GONE}\n{has_limit}\n", done.stderr


NAMED = """
from project.settings import DATABASES
options = DATABASES["default"]["OPTIONS"]
print(options["of_the_url"], options["init_command"])
"""


@pytest.mark.parametrize(
    ("url", "first"),
    [("sqlite:////tmp/a.sqlite3", "PRAGMA journal_mode=WAL"), ("mysql://db/site", "SET time_zone")],
)
def test_options_that_the_databases_url_names_are_passed_on(url, first):
    env = environment({"DATABASE_URL": f"{url}?of_the_url=7"})
    command = [sys.executable, "-c", NAMED]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"7 {first}"), done.stderr


def test_the_ids_are_all_tested():
    package = ROOT / "realtime"
    source = "".join((package / path).read_text() for path in ("checks.py", "access/checks.py"))
    here = Path(__file__).read_text()
    used = {word for word in source.split('"') if word.startswith("realtime.")}
    wanted = {word for word in used if word[9:10] in "EW" and word[10:].isdigit()}
    assert len(wanted) >= 12
    assert {word for word in wanted if f'"{word}"' not in here} == set()
    assert os.environ.get("DJANGO_SETTINGS_MODULE") == "tests.support.settings"


# -- realtime.W005: which runserver


@pytest.mark.parametrize(
    ("apps", "first"),
    [
        (["daphne", "realtime"], "daphne"),
        (["daphne", "realtime.apps.RealtimeConfig"], "daphne"),
        (["django.contrib.staticfiles", "realtime", "daphne"], "django.contrib.staticfiles"),
        (["realtime", "daphne", "django.contrib.staticfiles"], None),
        (["realtime"], None),
    ],
)
def test_w005_the_order_of_apps(apps, first):
    others = [app for app in settings.INSTALLED_APPS if app != "realtime"]
    with override_settings(INSTALLED_APPS=[*apps, *others]):
        found = run()
    assert [message.id for message in found] == ["realtime.W005"] * (first is not None)
    assert all(message.msg.startswith(repr(first)) for message in found)


# -- realtime.W010: another owner of the import name


def test_w010_another_package_of_this_import_name(tmp_path, monkeypatch):
    folder = tmp_path / "realtime-2.34.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: realtime\nVersion: 2.34.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    [message] = run()
    assert message.id == "realtime.W010"
    assert "2.34.1 (Supabase's client)" in message.msg
    assert "pip uninstall realtime" in message.hint


# -- realtime.W008: language models without their app


WITHOUT_LLM = [app for app in settings.INSTALLED_APPS if app != "realtime.llm"]


@override_settings(INSTALLED_APPS=WITHOUT_LLM)
def test_w008_settings_of_language_models_without_the_app():
    [message] = check_language_models_of(REALTIME={"LLM_MODEL": "x"})
    assert message.id == "realtime.W008"
    assert check_language_models_of(REALTIME={"MAX_TOPICS": 3}) == []


def check_language_models_of(**given: object) -> list[checks.CheckMessage]:
    with override_settings(**given):
        return our_checks.check_language_models()


@pytest.mark.django_db
def test_w008_answers_in_the_database_without_the_app():
    user = User.objects.create_user("alice")
    now = timezone.now()
    Generation.objects.create(user=user, name="n", topic="t", digest="d", beat=now, heard=now)
    assert our_checks.check_generations(databases=["default"]) == []
    with override_settings(INSTALLED_APPS=WITHOUT_LLM):
        [message] = our_checks.check_generations(databases=["default"])
        assert message.id == "realtime.W008"
        assert our_checks.check_generations(databases=None) == []


def test_no_two_modules_give_their_messages_one_id():
    found: dict[str, set[str]] = {}
    root = ROOT / "realtime"
    for file in root.rglob("*.py"):
        for id in re.findall(r'id="(realtime\.[EW]\d+)"', file.read_text()):
            found.setdefault(id, set()).add(str(file.relative_to(root)))
    several = {id: names for id, names in found.items() if len(names) > 1}
    # The wrong or missing URL of the bus, whichever it is.
    buses = {f"delivery/bus/{name}.py" for name in ("nats", "postgres", "redis")}
    assert several == {"realtime.E020": buses}
