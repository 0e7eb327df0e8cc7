"""`realtime.utils.outages`: what clients see of a database that is away, over real sockets."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..support.clients import ask, bearer, connect, refusal, session_cookie
from ..support.databases import ON_MARIADB, ON_POSTGRESQL, on_mariadb
from ..support.sites import site_for_module


def remove_database(url: str) -> None:
    if ON_MARIADB:
        on_mariadb(f"DROP DATABASE {url.rpartition('/')[2]}")
    elif ON_POSTGRESQL:
        where = conninfo_to_dict(url)
        admin = make_conninfo(**{**where, "dbname": "postgres"})
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {where['dbname']} WITH (FORCE)")
    else:
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            for (name,) in names.fetchall():
                if not name.startswith("sqlite_"):
                    connection.execute(f"DROP TABLE {name}")


@pytest.fixture
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with site_for_module(_site_template, {"MAX_BAD_MESSAGES": 1}) as site:
        site.server.expected.append("")  # whatever is logged
        yield site


async def test_clients_are_told_to_come_back(here: Any) -> None:
    cookie = await asyncio.to_thread(session_cookie, here, "alice")
    url, token = f"{here.url}/topics/room.a", bearer(here.tokens["alice"])
    socket_url = f"{here.ws_url}/ws/topics/room.a"
    async with (
        httpx.AsyncClient(timeout=30) as client,
        connect(socket_url, additional_headers=token) as socket,
    ):
        await asyncio.to_thread(remove_database, here.env["DATABASE_URL"])
        (status, _), stream, *answers = await asyncio.gather(
            refusal(socket_url, additional_headers=cookie),
            client.get(f"{url}/events", headers={**cookie, "Accept": "text/event-stream"}),
            client.post(f"{url}/events", content=b"1", headers=token),
            client.get(f"{url}/history", headers=cookie),
            client.get(f"{url}/events", headers=cookie),
        )
        assert status == 503
        assert (stream.status_code, stream.text[:7]) == (200, "retry: ")
        for answer in answers:
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "try again" in answer.json()["detail"]
        for ref in (1, 2):
            error = await ask(socket, {"type": "publish", "data": 1, "ref": ref})
            assert (error["type"], error["code"], error["ref"]) == ("error", "unavailable", ref)
