"""Health over real sockets, also while what it depends on is away."""

import asyncio
import json
import resource
import threading
import time
from functools import partial
from typing import Any

import httpx
import pytest
from django.test import AsyncRequestFactory

from realtime.delivery.hub import get_hub
from realtime.eventlog.memory import MemoryLog
from realtime.http import readiness
from realtime.http.health import healthz, readyz
from realtime.server.extensions import SERVER
from realtime.utils.threads import DATABASE

from ..support.clients import bearer
from ..support.databases import ON_MARIADB, ON_POSTGRESQL, on_mariadb
from ..support.hubs import Reader, stage
from ..support.layers import HangingLayer
from ..support.servers import TOKENS, serving, wait_until
from ..support.sites import shortened


def get(server: Any, path: str) -> httpx.Response:
    return httpx.get(f"{server.url}{path}")


def assert_alive_and_ready(server: Any) -> None:
    for path, text in [("/healthz", "ok\n"), ("/readyz", "ready\n")]:
        assert (get(server, path).status_code, get(server, path).text) == (200, text)
        head = httpx.head(f"{server.url}{path}")
        assert (head.status_code, head.text) == (200, "")


def assert_checks_are_for_staff(server: Any) -> None:
    for path, text, names in [
        ("/healthz", "ok\n", ["loop"]),
        ("/readyz", "ready\n", ["draining", "log", "bus"]),
    ]:
        url = f"{server.url}{path}?verbose=1"
        for headers in ({}, bearer(TOKENS["alice"]), bearer("rt_forged")):
            assert httpx.get(url, headers=headers).text == text
        assert httpx.get(f"{server.url}{path}", headers=bearer(TOKENS["admin"])).text == text
        answer = wait_until(partial(checks_of_staff, url), what="the checks")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        said = answer.json()
        assert said["ok"] is True
        assert [each["name"] for each in said["checks"]] == names
        for each in said["checks"]:
            assert (each["ok"], each["detail"] != "") == (True, True)
            assert 0 <= each["seconds"] < 10


def checks_of_staff(url: str) -> httpx.Response | None:
    """The answer with checks; None where the look-up of the token took over `STAFF_SECONDS`."""
    answer = httpx.get(url, headers=bearer(TOKENS["admin"]))
    return answer if answer.headers["content-type"] == "application/json" else None


def break_database(server: Any) -> None:
    """Make the site's database useless for who is connected already and for who comes."""
    url = server.env["DATABASE_URL"]
    if ON_POSTGRESQL:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        where = conninfo_to_dict(url)
        name = where["dbname"]
        admin = make_conninfo(**{**where, "dbname": "postgres"})
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    elif ON_MARIADB:
        on_mariadb(f"DROP DATABASE {url.rpartition('/')[2]}")
    else:  # as a full disk does: what is there can still be read
        (pid,) = server.worker_pids()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


def test_not_ready_while_nothing_can_be_stored(site):
    with serving(site) as server:
        assert_alive_and_ready(server)
        for path in ("/healthz", "/readyz"):  # as a load balancer asks: by the address, by HTTP
            answer = httpx.get(f"{server.url}{path}", headers={"Host": "10.0.0.7:8000"})
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert_checks_are_for_staff(server)
        break_database(server)

        def refused() -> bool:
            return get(server, "/readyz").status_code == 503

        wait_until(refused, what="a refusal")
        assert "log" in get(server, "/readyz").json()["detail"]
        assert get(server, "/healthz").status_code == 200
        assert get(server, "/readyz").headers["cache-control"] == "no-store"

        def told() -> list[str]:
            return [line for line in server.log if "Not ready: " in line]

        wait_until(told, what="a line")
        assert len(told()) == 1, "each of these was asked more than once"


def test_not_ready_without_the_layer(site, valkey):
    env = shortened(site, {}, REDIS_URL=valkey.url)
    with serving(env) as server:
        assert get(server, "/readyz").status_code == 200
        valkey.kill()
        wait_until(lambda: get(server, "/readyz").status_code == 503, what="a refusal")
        assert "layer" in get(server, "/readyz").json()["detail"]
        valkey.start()
        wait_until(lambda: get(server, "/readyz").status_code == 200, what="readiness")

        def told() -> list[str]:
            return [*filter(None, (line.partition("realtime.health ")[2] for line in server.log))]

        wait_until(lambda: len(told()) == 2, what="a line for each change")
        not_ready, again = told()
        assert not_ready.startswith("Not ready: ")
        assert again == "Ready again."


async def test_not_ready_while_the_layer_brings_nothing(caplog):
    """Though it takes all that is sent."""

    async def status() -> int:
        return (await readyz(AsyncRequestFactory().get("/readyz"))).status_code

    with stage(HEAD_CHECK_SECONDS=0.05, ANNOUNCE_TIMEOUT_SECONDS=0.2) as (layer, _):
        hub, reader = get_hub(), Reader()
        feed = await hub.attach("a", reader)
        for is_deaf, expected in [(False, 200), (True, 503), (False, 200)]:
            layer.deaf = is_deaf
            async with asyncio.timeout(20):
                while await status() != expected:
                    await asyncio.sleep(0.05)
        hub.detach(feed, reader)
        await hub._closing
    assert "Not ready: " in caplog.text


async def test_not_ready_while_the_server_drains(monkeypatch, caplog):
    """Nor is anything asked, which may be gone already."""

    async def find(self: readiness.Readiness) -> list[readiness.HealthCheck]:
        raise AssertionError("asked")

    state = {"draining": False}
    request = AsyncRequestFactory().get("/readyz")
    request.scope["extensions"] = {SERVER: state}
    with stage():
        assert (await readyz(request)).status_code == 200
        state["draining"] = True
        monkeypatch.setattr(readiness.Readiness, "find", find)
        answer = await readyz(request)
    assert answer.status_code == 503
    assert json.loads(answer.content)["detail"] == "This server is shutting down."
    assert "Not ready: This server is shutting down." in caplog.text


@pytest.mark.parametrize("what", ["log", "bus"])
async def test_not_ready_where_a_check_does_not_return(monkeypatch, what):
    """As where a connection has fallen silent, and its thread is stuck."""
    stuck = threading.Event()

    async def check_writable(self: MemoryLog) -> None:
        await DATABASE.run(stuck.wait)

    layer = HangingLayer() if what == "bus" else None
    if what == "log":
        monkeypatch.setattr(MemoryLog, "check_writable", check_writable)
        monkeypatch.setattr(readiness, "READY_SECONDS", 0.1)
    try:
        with stage(layer, ANNOUNCE_TIMEOUT_SECONDS=0.1):
            async with asyncio.timeout(10):
                answer = await readyz(AsyncRequestFactory().get("/readyz"))
    finally:
        stuck.set()
    assert answer.status_code == 503
    assert "TimeoutError" in json.loads(answer.content)["detail"]


async def test_flood_of_questions_is_answered_from_one_check_a_second(monkeypatch):
    asked = 0

    async def check_writable(self: MemoryLog) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)

    monkeypatch.setattr(MemoryLog, "check_writable", check_writable)
    monkeypatch.setattr(readiness, "READY_CACHE_SECONDS", 600.0)
    with stage():
        for _ in range(2):
            flood = (readyz(AsyncRequestFactory().get("/readyz")) for _ in range(50))
            assert {answer.status_code for answer in await asyncio.gather(*flood)} == {200}
        assert asked == 1
        monkeypatch.setattr(readiness.get_readiness(), "_until", 0.0)  # a second later
        await readyz(AsyncRequestFactory().get("/readyz"))
        assert asked == 2


async def test_alive_until_one_turn_of_the_loop_takes_too_long(monkeypatch):
    def hold() -> None:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass

    for limit, status in [(15.0, 200), (0.02, 503)]:
        monkeypatch.setattr(readiness, "ALIVE_TURN_SECONDS", limit)
        asyncio.get_running_loop().call_soon(hold)
        answer = await healthz(AsyncRequestFactory().get("/healthz"))
        assert answer.status_code == status
    assert "A turn of the event loop has taken" in answer.text
