"""The documentation: its code is that of files that run, its commands work, its links lead on."""

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from blockbuster import BlockingError
from channels.routing import URLRouter
from django.conf import settings as django_settings
from django.contrib.auth.models import Group, User
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings
from django.urls import path

from docs.examples import (
    delete_topics,
    llm_provider,
    llm_resumable,
    llm_test,
    llm_view,
    page_position,
    permission_rule,
    progress_job,
    progress_view,
    sse_publish,
    sse_view,
    tokens,
    tokens_socket,
    websocket_echo,
    websocket_room,
    websocket_topic,
)
from realtime.access.authentication import authenticate_token
from realtime.access.permissions import may
from realtime.access.tokens import create_token
from realtime.conf import Settings
from realtime.delivery.publish import apublish, publish
from realtime.llm.conf import Settings as LLMSettings
from realtime.llm.providers.dummy import DummyProvider
from realtime.models import Event, Topic
from realtime.server.limits import Limits
from realtime.testing import (
    ConnectionClosed,
    ConnectionRefused,
    event_stream,
    memory_log,
    websocket,
)

from .support import asgi
from .support.attempts import three_tries
from .support.clients import bearer, eventually
from .support.databases import ON_POSTGRESQL
from .support.sites import site_for_module

ROOT = Path(__file__).resolve().parent.parent
DOCS, EXAMPLES = ROOT / "docs", ROOT / "docs" / "examples"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"<!-- examples/(\S+) -->\n```(\w+)\n(.*?)^```$", re.S | re.M)
in_database = pytest.mark.django_db(transaction=True)

urlpatterns = [
    path("clock", sse_view.clock),
    path("ring", sse_publish.ring),
    path("groups", page_position.groups),
    path("ask", llm_view.ask),
    path("answers", llm_resumable.ask),
    path("answers/<name>", llm_resumable.cancel),
    path("resize", progress_view.resize),
]


@pytest.fixture
def application() -> Any:
    with override_settings(ROOT_URLCONF="tests.test_docs"):
        yield ASGIHandler()


@pytest.fixture
def alice() -> Any:
    return User.objects.create_user("alice")


# -- the pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_files(page):
    text = page.read_text()
    for name, _, shown in BLOCK.findall(text):
        assert shown == (EXAMPLES / name).read_text(), f"{page.name} shows another {name}"
    named = len(BLOCK.findall(text))
    code = len(re.findall(r"^```(?:python|js|html|sql)$", text, re.M))
    assert code == named, f"{page.name} has code that is no file of docs/examples/"


def test_every_file_is_shown():
    shown = {name for page in PAGES for name, _, _ in BLOCK.findall(page.read_text())}
    assert shown == {file.name for file in EXAMPLES.iterdir() if file.is_file()} - {"__init__.py"}


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [
        link for link in links if "://" not in link and not (page.parent / link).resolve().exists()
    ]
    assert missing == []


def test_each_guarantee_names_tests_that_exist():
    page = DOCS / "guarantees.md"
    promised, _, _ = page.read_text().partition("## What an acknowledgement survives")
    rows = re.findall(r"^\| ([A-Z`].*) \| (.*) \|$", promised, re.M)
    assert len(rows) > 30
    assert promised.count("\n| ") == len(rows) + promised.count("\n| guaranteed | held by |\n")
    for sentence, links in rows:
        named = re.findall(r"\[`(test_\w+)`\]\((\S+)\)", links)
        assert named, sentence
        for test, path_of in named:
            assert f"def {test}(" in (page.parent / path_of).read_text(), test


def test_limits_of_the_security_page_are_the_defaults():
    given = {each.name: each.default for each in fields(Limits)}
    for table in (Settings.table(), LLMSettings.table()):
        given |= {name: setting.default for name, setting in table.items()}
    page = (DOCS / "security.md").read_text().partition("## Limits")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", page, re.M)
    assert len(rows) > 30
    assert [row for row in rows if str(given[row[0]]) != row[1]] == []


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with site_for_module(_site_template, {}) as site:
        yield site


COMMANDS = [
    pytest.param(command, id=f"{page.name}-{number}")
    for page in PAGES
    for number, command in enumerate(re.findall(r"^\$ (curl .*)$", page.read_text(), re.M))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work(here, command):
    where = here.url.removeprefix("http://")
    # Silent: a progress meter, which a slow answer starts, puts itself before the answer's line.
    ours = command.replace("localhost:8000", where) + " -s -v -N -o /dev/null"
    env = {"TOKEN": here.tokens["alice"], "PATH": "/usr/local/bin:/usr/bin:/bin"}
    with subprocess.Popen(
        ["bash", "-c", f"exec {ours}"], env=env, stderr=subprocess.PIPE, text=True
    ) as curl:
        assert curl.stderr is not None
        answer = next((line for line in curl.stderr if line.startswith("< HTTP/")), "no answer")
        try:
            assert curl.wait(1) == 0
        except subprocess.TimeoutExpired:  # a stream that goes on
            curl.terminate()
    assert re.match(r"< HTTP/1.1 20[01] ", answer), answer


# -- the examples


@pytest.mark.skipif(ON_POSTGRESQL, reason="forks, with a pool of connections")
def test_live_server() -> None:
    command = [sys.executable, "-m", "django", "test", "docs.examples.live_server"]
    done = subprocess.run(
        [*command, "--settings", "tests.support.settings"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


async def test_sse_view(application):
    async with event_stream(application, "/clock") as stream:
        assert (await stream.receive()).data.startswith("20")


def test_sse_publish(client, application):
    with memory_log() as log:
        assert client.get("/ring").status_code == 204
    assert [event.type for event in log.events("public.bell")] == ["ring"]


@in_database
async def test_asgi_py_of_the_publish_consumer_serves_it(alice):
    application = importlib.import_module("docs.examples.publish_consumer").application
    token, _ = await asyncio.to_thread(create_token, alice)
    transport = httpx.ASGITransport(application)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        websocket(application, "/ws/topics/room.a", user=alice) as socket,
    ):
        answer = await client.post("/topics/room.a/events", content=b"1", headers=bearer(token))
        assert answer.status_code == 201
        assert "x-frame-options" not in answer.headers  # it did not come as far as Django
        assert (await socket.receive_json())["data"] == 1
    with pytest.raises(ConnectionRefused, match="no WebSocket"):
        async with websocket(application, "/ws/mine", user=alice):
            pass


@in_database
def test_page_position(client, application):
    Group.objects.create(name="red")
    event = publish("public.groups", {"id": 1})
    [engine] = django_settings.TEMPLATES
    with override_settings(TEMPLATES=[{**engine, "DIRS": [EXAMPLES]}]):
        page = client.get("/groups").content.decode()
    assert f'EventSource("/topics/public.groups/events?after={event.id}")' in page
    assert "red</li>" in page


@in_database
async def test_permission_rule(alice):
    await alice.groups.aadd(await Group.objects.acreate(name="red"))
    assert await permission_rule.rule(alice, "team.red", "read")
    assert not await permission_rule.rule(alice, "team.blue", "read")
    assert await permission_rule.rule(alice, "room.a", "read")


@in_database
async def test_websocket_echo(alice):
    routes = URLRouter(websocket_echo.websocket_urlpatterns)
    async with websocket(routes, "/ws/my-echo", user=alice) as socket:
        await socket.send_json({"a": 1})
        assert await socket.receive_json() == {"echo": {"a": 1}}


@in_database
async def test_websocket_topic(alice):
    routes = URLRouter([path("ws/orders", websocket_topic.Orders.as_asgi())])
    async with websocket(routes, "/ws/orders", user=alice) as socket:
        await socket.send_json(1)
        assert await socket.receive_json() == {"seen": 1}
        await apublish(f"user.{alice.pk}", {"order": 7})
        assert (await socket.receive_json())["data"] == {"order": 7}


@in_database
async def test_websocket_room(alice):
    routes = URLRouter(websocket_room.websocket_urlpatterns)
    boss = await User.objects.acreate(username="boss", is_staff=True)
    async with (
        websocket(routes, "/ws/rooms/a", user=alice) as reader,
        websocket(routes, "/ws/rooms/a", user=boss) as writer,
    ):
        assert await reader.receive_json() == {"hello": "alice"}
        await reader.send_json("hi")
        assert (await reader.receive_json())["code"] == "not_allowed"
        await writer.send_json("hi")
        assert (await reader.receive_json())["data"] == "hi"
        await reader.send_json("bye")
        with pytest.raises(ConnectionClosed, match="4000 Come again"):
            await reader.receive()
    with pytest.raises(ConnectionRefused, match="401"):
        async with websocket(routes, "/ws/rooms/a"):
            pass


@in_database
async def test_tokens(alice):
    token = await asyncio.to_thread(tokens.token_for, alice, SimpleNamespace(pk=7))
    identity = await authenticate_token(token)
    assert await may(identity.user, "orders.7", "read") is False  # the rule's; a token adds nothing
    with override_settings(REALTIME={"TOPICS": {"orders.*": {"READ": "users"}}}):
        assert await may(identity.user, "orders.7", "read") is True
        assert await may(identity.user, "orders.8", "read") is False


@in_database
async def test_tokens_socket(alice):
    routes = URLRouter([path("ws/orders", tokens_socket.Orders.as_asgi())])
    with override_settings(REALTIME={"TOPICS": {"orders.*": {"READ": "users"}}}):
        scopes = ["read:orders.*", "read:room.*"]
        good, bad = [
            (await asyncio.to_thread(create_token, alice, scopes=each))[0] for each in scopes
        ]
        async with websocket(routes, f"/ws/orders?token={good}") as socket:
            await apublish("orders.all", 1)
            assert (await socket.receive_json())["data"] == 1
        with pytest.raises(ConnectionRefused, match="no scope"):
            async with websocket(routes, f"/ws/orders?token={bad}"):
                pass


@in_database
async def test_llm_view_and_provider(application, alice):
    with override_settings(REALTIME={"LLM_PROVIDER": llm_provider.Shouting}):
        async with event_stream(application, "/ask?prompt=be+loud", user=alice) as stream:
            found = [await stream.receive() for _ in range(3)]
    assert [event.json() for event in found[:2]] == [{"token": "BE "}, {"token": "LOUD "}]
    assert found[2].event == "done"


@in_database
async def test_llm_resumable(application, alice, async_client):
    await async_client.aforce_login(alice)
    dummy = DummyProvider("a", hangs=True)
    with override_settings(REALTIME={"LLM_PROVIDER": lambda: dummy}):
        no_object = await async_client.post("/answers", "[]", content_type="application/json")
        assert no_object.status_code == 400
        question = {"prompt": "Why?"}  # as curl and the browser send it on the page
        answer = await async_client.post("/answers", question, content_type="application/json")
        assert answer.status_code == 201
        assert answer.json()["topic"] == f"user.{alice.pk}.chat.{answer.json()['name']}"
        await eventually(lambda: dummy.prompts == ["Why?"])
        assert (await async_client.delete("/answers/unknown")).status_code == 404
        gone = await async_client.delete(f"/answers/{answer.json()['name']}")
        assert gone.status_code == 204
        await eventually(lambda: not dummy.open)


@in_database
def test_delete_topics():
    for topic in ("room.kept", "room.old", "other.old"):
        publish(topic, 1)
    Event.objects.exclude(topic__name="room.kept").delete()
    assert delete_topics.delete_topics_without_events("room.") == 1
    names = {"room.kept", "other.old"}
    assert names == {
        *Topic.objects.filter(name__regex=r"^(room|other)[.]").values_list("name", flat=True)
    }
    assert publish("room.old", 1).offset == 1


async def test_llm_test():
    await llm_test.test_what_we_do_with_an_answer()


@in_database
async def test_site_tests(monkeypatch):
    monkeypatch.setitem(sys.modules, "mysite", ModuleType("mysite"))
    monkeypatch.setitem(sys.modules, "mysite.asgi", asgi)
    site_tests = importlib.import_module("docs.examples.site_tests")
    rooms = site_tests.RoomTests()
    await rooms.test_a_room_over_both_transports()
    await rooms.test_strangers_stay_outside()
    await sync_to_async(site_tests.PublishTests().test_what_is_published)()


async def test_progress_view(application):
    async with event_stream(application, "/resize") as stream:
        events = [await stream.receive() for _ in range(4)]
    assert [event.event for event in events] == ["message"] * 3 + ["done"]
    await eventually(lambda: progress_view.released == ["/resize"])


class Row:
    """Something to import."""

    saved = 0

    def save(self) -> None:
        Row.saved += 1

    async def asave(self) -> None:
        Row.saved += 1


@in_database
async def test_progress_job():
    user = SimpleNamespace(pk=1)
    with memory_log() as log:
        await sync_to_async(progress_job.import_rows)(user, 7, [Row(), Row()])
        await progress_job.import_rows_async(user, 8, [Row(), Row()])
    for job in (7, 8):
        told = log.events(f"user.1.import.{job}")
        assert [event.type for event in told].count("done") == 1
        assert json.loads(told[-1].data) == {"step": 2, "of": 2}
    assert Row.saved == 4


def test_no_blocking(tmp_path):
    """The fixture as it is shown, around a test that holds the loop."""
    (tmp_path / "conftest.py").write_text((EXAMPLES / "no_blocking.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import asyncio, time\n\nasync def test_good(free_loop):\n    await asyncio.sleep(0.3)\n\n"
        "async def test_bad(free_loop):\n    await asyncio.sleep(0)\n    time.sleep(0.8)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    command += ["-o", "asyncio_mode=auto", "--rootdir", str(tmp_path)]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.support.settings",
    }

    def run() -> None:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
        assert "2 passed, 1 error" in done.stdout, done.stdout
        assert "EventLoopBlocked" in done.stdout
        assert "time.sleep(0.8)" in done.stdout

    three_tries(run)


def test_blocking_calls(tmp_path):
    """The fixture as it is shown, in a project whose app blocks the loop."""
    (tmp_path / "conftest.py").write_text((EXAMPLES / "blocking_calls.py").read_text())
    (tmp_path / "myapp.py").write_text(
        "import asyncio, time\n\nasync def bad():\n    time.sleep(0.01)\n\n"
        "async def good():\n    await asyncio.sleep(0.01)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import asyncio, myapp\n\ndef test_good():\n    asyncio.run(myapp.good())\n\n"
        "def test_bad():\n    asyncio.run(myapp.bad())\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:django",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "BlockingError" in done.stdout


async def test_our_own_suite_finds_blocking_calls():
    """The detector is on in every test here, for calls that this package makes."""
    module = importlib.import_module("realtime.utils.aio")
    code = compile("import time\ntime.sleep(0.001)", module.__file__ or "", "exec")
    with pytest.raises(BlockingError):
        exec(code, {})
    await asyncio.sleep(0)
