"""Row 13 on the real site: `GET /stream/items`."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ..support.streaming import MIB, client, fill_items, memory, read_away, streaming_site

COUNT = 200_000


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        yield site


@pytest.fixture(autouse=True, scope="module")
def _items(here: Any) -> None:
    fill_items(here, COUNT)


def rows(here: Any, query: str = "") -> list[Any]:
    answer = httpx.get(f"{here.url}/stream/items{query}", timeout=30)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_all_rows_in_constant_memory(here):
    rows(here, "?limit=10000")
    before = most = memory(here.pid)
    with client(here, timeout=30) as connection:
        connection.request("/stream/items", "Connection: close")
        assert connection.head().headers["content-type"] == "application/x-ndjson"
        lines, end = 0, b""
        while data := connection.sock.recv(MIB):
            lines += data.count(b"}\n")
            end = (end + data)[-5:]
            most = max(most, memory(here.pid))
    # A line may be cut in two between the brace and its end by a chunk's border.
    assert lines == pytest.approx(COUNT, abs=COUNT / 100)
    assert end == b"0\r\n\r\n"
    assert most - before < 32 * MIB


def test_what_a_row_looks_like(here):
    assert rows(here, "?limit=1") == [
        {
            "id": 1,
            "name": "Item 1",
            "price": "79.19",
            "created": "2025-01-01T00:00:00Z",
            "uuid": "00000000-0000-0000-0000-000000000001",
        }
    ]


def test_each_row_once(here):
    assert [row["id"] for row in rows(here)] == list(range(1, COUNT + 1))


def test_after_and_limit(here):
    assert [row["id"] for row in rows(here, "?after=10&limit=3")] == [11, 12, 13]
    assert [row["id"] for row in rows(here, f"?after={COUNT - 1}")] == [COUNT]
    assert rows(here, f"?after={COUNT}") == []
    assert rows(here, "?limit=0") == []
    assert rows(here, f"?after={'9' * 30}") == []
    assert len(rows(here, "?after=-5&limit=5000")) == 5000


@pytest.mark.parametrize("query", ["after=x", "after=", "after=1.5", "limit=-1", "limit=x"])
def test_bad_queries(here, query):
    answer = httpx.get(f"{here.url}/stream/items?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_client_that_stalls_costs_little(here):
    # What the first streams of a process load and allocate is not a client's.
    warm = [client(here, receive_buffer=4096) for _ in range(10)]
    for connection in warm:
        connection.request("/stream/items")
        connection.head()
    assert len(rows(here, "?limit=100")) == 100
    for connection in warm:
        connection.close()
    before = memory(here.pid)
    connections = [client(here, receive_buffer=4096) for _ in range(10)]
    try:
        for connection in connections:
            connection.request("/stream/items")
            connection.head()
        assert len(rows(here, "?limit=100")) == 100
        assert memory(here.pid) - before < 24 * MIB
    finally:
        for connection in connections:
            connection.close()


def test_only_get(here):
    assert httpx.post(f"{here.url}/stream/items").status_code == 405
    with client(here) as connection:
        connection.request("/stream/items?limit=1")
        assert connection.response().body.endswith(b"}\n")
        connection.request("/healthz")  # the connection is still good
        assert read_away(connection, 12) == 12
