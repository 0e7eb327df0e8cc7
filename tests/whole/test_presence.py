"""Who is there, with two real workers: one is killed, all are replaced. `PRESENCE_USERS`: how many.

`PRESENCE_TABS` is the number of each one's tabs, in turn.
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets

from ..support.clients import bearer, connect, eventually
from ..support.sites import site_for_module

USERS = int(os.environ.get("PRESENCE_USERS", "10"))
TABS = [int(tabs) for tabs in os.environ.get("PRESENCE_TABS", "1 3").split()]  # in turn
SHORT = {
    "PROCESS_BEAT_SECONDS": 0.5,
    "PROCESS_LEASE_SECONDS": 2.0,
    "PRESENCE_GRACE_SECONDS": 7.0,
    "PRESENCE_SECONDS": 0.5,
    "PRESENCE_MEMBERS": 1_000,
}
MAKE = """
users = User.objects.bulk_create(User(username=f"user{{n}}") for n in range({users}))
result = [create_token(user)[0] for user in users]
"""


@pytest.fixture(scope="module")
def site(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with site_for_module(_site_template, SHORT, "--workers", "2") as site:
        site.users = site.shell.run(MAKE.format(users=USERS))
        yield site


class Tab:
    """A WebSocket that is told who is there, and keeps account of it."""

    def __init__(self, site: SimpleNamespace, token: str, topic: str, *, comes_back: bool) -> None:
        self.url = f"{site.ws_url}/ws/topics/{topic}?presence=1&token={token}"
        self.comes_back = comes_back
        self.users: set[str] = set()
        self.frames: list[Any] = []  # but for the first
        self.opened = 0
        self.is_open = False
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        while not self.opened or self.comes_back:
            try:
                async with connect(self.url) as socket:
                    self.opened += 1
                    self.is_open = True
                    async for message in socket:
                        self.hear(json.loads(message))
            except (websockets.InvalidHandshake, websockets.ConnectionClosed, OSError):
                await asyncio.sleep(0.1)
            finally:
                self.is_open = False

    def hear(self, frame: Any) -> None:
        if "users" in frame:
            self.users = {each["username"] for each in frame["users"]}
        elif frame["type"] == "presence":
            self.frames.append(frame)
            self.users |= {each["username"] for each in frame["joined"]}
            self.users -= {each["username"] for each in frame["left"]}

    @property
    def left(self) -> list[str]:
        return [each["username"] for frame in self.frames for each in frame["left"]]


async def opened(tabs: list[Tab], count: int) -> None:
    everybody = {f"user{number}" for number in range(USERS)}
    await eventually(lambda: all(tab.opened >= count and tab.is_open for tab in tabs), 60)
    await eventually(lambda: all(tab.users == everybody for tab in tabs), 30)


async def close(tabs: list[Tab]) -> None:
    for tab in tabs:
        tab.task.cancel()
    await asyncio.wait([tab.task for tab in tabs])


async def test_all_workers_are_replaced_and_nobody_is_told(site: SimpleNamespace) -> None:
    tabs = [Tab(site, token, "room.restart", comes_back=True) for token in site.users]
    await opened(tabs, 1)
    for tab in tabs:
        tab.frames.clear()  # of those who came after it
    site.server.process.send_signal(signal.SIGHUP)
    await opened(tabs, 2)
    alice = Tab(site, site.tokens["alice"], "room.restart", comes_back=False)
    await eventually(lambda: all("alice" in tab.users for tab in tabs))
    told = {
        (tuple(each["username"] for each in f["joined"]), len(f["left"]))
        for tab in tabs
        for f in tab.frames
    }
    assert told == {(("alice",), 0)}
    await close([*tabs, alice])


async def test_of_a_killed_worker_those_leave_who_are_not_on_the_other(
    site: SimpleNamespace,
) -> None:
    await eventually(lambda: len(site.server.worker_pids()) == 2)
    tabs = [
        Tab(site, token, "room.kill", comes_back=False)
        for number, token in enumerate(site.users)
        for _ in range(TABS[number % len(TABS)])
    ]
    owners = [f"user{number}" for number in range(USERS) for _ in range(TABS[number % len(TABS)])]
    await opened(tabs, 1)
    os.kill(site.server.busiest_worker(), signal.SIGKILL)
    site.server.expected.append("died")
    await eventually(lambda: not all(tab.is_open for tab in tabs))
    await asyncio.sleep(1)  # all that were on it are closed
    readers = [tab for tab in tabs if tab.is_open]
    stay = {owner for owner, tab in zip(owners, tabs, strict=True) if tab.is_open}
    gone = sorted(set(owners) - stay)
    await eventually(lambda: all(sorted(tab.left) == gone for tab in readers), 40)

    def counted() -> Any:
        url = f"{site.url}/topics/room.kill/presence"
        answer = httpx.get(url, headers=bearer(site.tokens["alice"])).json()
        return {each["username"] for each in answer["users"]}, answer["connections"]

    await eventually(lambda: counted() == (stay, len(readers)), 40)
    await asyncio.sleep(1)
    assert all(sorted(tab.left) == gone and tab.users == stay for tab in readers), "once"
    await close(tabs)
