"""The live page of the admin, through Django's test client; tests/demo/test_live has a browser."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import urljoin

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db.models.functions import Now
from django.test import AsyncClient, Client, override_settings
from django.test.utils import override_script_prefix
from django.urls import reverse
from django.utils.functional import SimpleLazyObject

from realtime.access import signals
from realtime.access.tokens import create_token
from realtime.admin import live_admin
from realtime.admin.snapshot import ConnectionLine, Snapshot
from realtime.models import Process

from ..support.admin import helper

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()

RTL = "\u202e<b>ecila</b>"
NOTHING = "\N{EN DASH}"
PAGE, EVENTS, DISCONNECT = (
    f"admin:realtime_process_{name}" for name in ("changelist", "events", "disconnect")
)


def live(client: Client, **query: str) -> str:
    answer = client.get(reverse(PAGE), query)
    assert answer.status_code == 200
    return answer.content.decode()


def add_process(name: str = "a0.17", age: float = 0.0, **columns: Any) -> None:
    made = Now() - timedelta(seconds=age)
    values = {"host": "web1", "version": "1.2.3", "started": made, "beat": made, **columns}
    Process.objects.bulk_create([Process(name=name, **values)])


async def with_connections(shown: Snapshot) -> None:
    """Of each user that was looked for one, as if a process had answered."""
    since = datetime(2026, 1, 2, tzinfo=UTC)
    for line in shown.users:
        of = ConnectionLine(shown.processes[0], "SSE", since, ["room.a"], 3, "192.0.2.7")
        line.connections.append(of)


# -- who sees what


def test_page_and_its_link_are_for_those_with_its_permission(boss):
    url = reverse(PAGE)
    index = reverse("admin:index")
    assert url in boss.get(index).content.decode()
    assert "No process has readers now." in live(boss)
    client = helper("view_process", "change_process", "view_event", "disconnect_user")
    assert url not in client.get(index).content.decode()
    for path in (PAGE, EVENTS):
        assert client.get(reverse(path)).status_code == 403
    user = User.objects.get(username="helper")
    user.user_permissions.add(Permission.objects.get(codename="view_live"))
    assert url in client.get(index).content.decode()
    assert "No process has readers now." in live(client)
    user.is_staff = False
    user.save()
    assert client.get(url).status_code == 302
    assert client.get(reverse(EVENTS)).status_code == 403


def test_a_token_opens_no_stream_of_the_page():
    """It may be worth less than its user."""
    token, _ = create_token(User.objects.create_superuser("boss"))
    headers = {"Authorization": f"Bearer {token}"}
    assert Client(headers=headers).get(reverse(EVENTS)).status_code == 401
    assert Client().get(reverse(EVENTS)).status_code == 401


def test_addresses_and_the_button_are_for_those_with_their_permissions(boss, alice):
    add_process()
    with patch.object(live_admin, "complete", with_connections):
        shown = live(boss, user="alice")
        assert ("192.0.2.7" in shown, "Disconnect</button>" in shown) == (True, True)
        assert "room.a and 3 more" in shown
        shown = live(helper("view_live"), user="ALICE")
        assert "room.a and 3 more" in shown
        assert ("192.0.2.7" in shown, "Disconnect</button>" in shown) == (False, False)


async def test_stream_ends_when_the_permission_is_taken_away():
    user = await User.objects.acreate_user("helper", is_staff=True)
    permission = await Permission.objects.aget(codename="view_live")
    await user.user_permissions.aadd(permission)
    client = AsyncClient()
    await client.aforce_login(user)
    with (
        patch.object(live_admin, "REFRESH_SECONDS", 0.01),
        override_settings(REALTIME={"PROCESS_BEAT_SECONDS": None}),
    ):
        answer = await client.get(reverse(EVENTS))
        assert answer.headers["Content-Type"] == "text/event-stream"
        parts = aiter(answer)
        assert b"Topics with readers" in await anext(parts)
        await user.user_permissions.aremove(permission)
        async with asyncio.timeout(20):
            async for _ in parts:
                pass


def second_factor(get_response: Any) -> Any:
    """Say of each user whether it was shown, as django-otp does."""

    def verified(user: Any, is_verified: bool) -> Any:
        user.is_verified = lambda: is_verified
        user.get_all_permissions()  # it remembers them
        return user

    def middleware(request: Any) -> Any:
        is_verified = request.headers.get("Factor") == "shown"
        request.user = SimpleLazyObject(partial(verified, request.user, is_verified))
        return get_response(request)

    return middleware


def has_permission(request: Any) -> bool:
    """As the one of a site whose admin wants a second factor."""
    return bool(request.user.is_active and request.user.is_staff and request.user.is_verified())


async def test_stream_is_for_whom_the_admin_site_lets_in():
    user = await User.objects.acreate_user("helper", is_staff=True)
    permission = await Permission.objects.aget(codename="view_live")
    await user.user_permissions.aadd(permission)
    client = AsyncClient()
    await client.aforce_login(user)
    with (
        patch.object(admin.site, "has_permission", has_permission),
        patch.object(live_admin, "REFRESH_SECONDS", 0.01),
        override_settings(
            MIDDLEWARE=[*settings.MIDDLEWARE, f"{__name__}.second_factor"],
            REALTIME={"PROCESS_BEAT_SECONDS": None},
        ),
    ):
        answer = await client.get(reverse(EVENTS))
        assert answer.status_code == 403
        answer = await client.get(reverse(EVENTS), headers={"Factor": "shown"})
        assert answer.status_code == 200
        parts = aiter(answer)
        assert b"Topics with readers" in await anext(parts)
        await user.user_permissions.aremove(permission)
        async with asyncio.timeout(20):
            async for _ in parts:
                pass


# -- what is shown


async def with_a_topic(shown: Snapshot) -> None:
    shown.topics = [("room.a", 1)]


def links_to_topics(html: str) -> list[str]:
    return re.findall(r'href="([^"]*topic=[^"]*)"', html)


async def test_links_of_page_and_stream_lead_to_the_page_below_a_path():
    client, page = AsyncClient(), "https://a.test/app/admin/realtime/process/"
    await client.aforce_login(await User.objects.acreate_superuser("boss"))
    with patch.object(live_admin, "complete", with_a_topic), override_script_prefix("/app/"):
        shown = await client.get("/admin/realtime/process/")
        stream = await client.get("/admin/realtime/process/events/")
        async with aclosing(aiter(stream)) as parts:
            frame = await anext(parts)
    (link,) = links_to_topics(shown.content.decode())
    assert urljoin(page, link) == f"{page}?topic=room.a&amp;user=#tail"
    (link,) = links_to_topics(json.loads(frame.decode().partition("data: ")[2]))
    assert urljoin(page, link) == f"{page}?topic=room.a&amp;user=#tail"


def test_processes_are_shown_with_their_state(boss):
    add_process("a0.17", connections=12, loop_lag=0.0124)
    add_process("b0.18", age=3_600, host="web2", connections=1, loop_lag=0.0)
    add_process("c0.19", host="web3", bus_failure="TimeoutError", connections=0, loop_lag=1.0)
    add_process("d0.20", host="web4")  # of an earlier release
    with patch.object(live_admin, "complete", with_connections):
        shown = live(boss)
    for text in (">17<", ">12<", ">12 ms<", "silent for 3600 s", "does not answer (TimeoutError)"):
        assert text in shown
    assert shown.count("silent for") == 1
    assert shown.count(f">{NOTHING}<") == 3


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "{{ 7 }}", "a b", "../admin"])
def test_hostile_names_are_text(boss, name):
    add_process(host="<i>web1</i>")
    User.objects.create_user(RTL)
    with patch.object(live_admin, "complete", with_connections):
        shown = live(boss, user=RTL, topic=name)
        assert "<bdi>\u202e&lt;b&gt;ecila&lt;/b&gt;</bdi>" in shown
        assert "<b>ecila" not in shown
        assert "<i>web1" not in shown
        assert "&lt;i&gt;web1" in shown
        assert "<script>alert" not in shown
        assert "data-tail=" not in shown
        assert "No user is called" in live(boss, user=name)
    assert "No user is called" in live(boss, user="\0")


def test_a_topic_is_followed_at_its_own_address(boss):
    shown = live(boss, topic="room.a")
    assert f'data-tail="{reverse("realtime:topic", args=["room.a"])}"' in shown
    assert "<script>" not in shown  # none inline: what is here holds under a strict policy


def test_page_takes_as_many_queries_for_many_processes(boss, django_assert_num_queries):
    User.objects.create_user("alice")
    with patch.object(live_admin, "complete", with_connections):
        for number in range(20):
            add_process(f"a{number}.17")
        with django_assert_num_queries(3):  # session, user, processes
            live(boss)
        with django_assert_num_queries(4):
            live(boss, user="alice")


# -- disconnecting


def test_who_disconnected_whom_is_in_the_history(boss, alice):
    with patch.object(signals, "publish") as told:
        answer = boss.post(reverse(DISCONNECT), {"user": alice.pk})
    assert answer["Location"] == f"{reverse(PAGE)}?user=alice"
    told.assert_called_once_with(signals.TOPIC, {"disconnect": str(alice.pk)}, ephemeral=True)
    [entry] = LogEntry.objects.all()
    assert (entry.user.get_username(), entry.get_edited_object()) == ("boss", alice)
    assert "Ended all live connections" in entry.get_change_message()


def disconnected_by(client: Client, method: Callable[..., Any], **form: Any) -> int:
    with patch.object(signals, "publish") as told:
        status: int = method(reverse(DISCONNECT), form).status_code
    assert not told.called
    assert not LogEntry.objects.exists()
    return status


def test_disconnecting_takes_its_permission_a_form_of_ours_and_a_user(boss, alice):
    assert disconnected_by(boss, boss.get) == 405
    for pk in ("", "0", "nobody", "\0"):
        assert disconnected_by(boss, boss.post, user=pk) == 302
    client = helper("view_live", "change_user")
    assert disconnected_by(client, client.post, user=alice.pk) == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="boss"))
    assert disconnected_by(strict, strict.post, user=alice.pk) == 403
