"""Row 16 on the real site: the client's pace is the generator's."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ..support.attempts import three_tries
from ..support.clients import bearer
from ..support.streaming import MIB, client, memory, read_away, streaming_site


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template) as site:
        yield site


def ask(here: Any, query: str, user: str | None = "admin") -> httpx.Response:
    headers = bearer(here.tokens[user]) if user else {}
    return httpx.get(f"{here.url}/firehose{query}", headers=headers, timeout=20)


def test_a_client_that_reads_a_kilobyte_and_stops(here):
    ask(here, "?mb=1")
    before = most = memory(here.pid)
    with client(here) as connection:
        connection.request("/firehose?mb=1000", f"Authorization: Bearer {here.tokens['admin']}")
        assert connection.head().status == 200
        connection.exactly(1024)
        for _ in range(20):
            time.sleep(0.1)
            most = max(most, memory(here.pid))
    assert most - before < 8 * MIB


def growth_while_all_is_read(here: Any, mb: int) -> int:
    """What the server grows by at its peak, for a client that reads as fast as it can."""
    before = most = memory(here.pid)
    read = 0
    with client(here) as connection:
        headers = [f"Authorization: Bearer {here.tokens['admin']}", "Connection: close"]
        connection.request(f"/firehose?mb={mb}", *headers)
        assert connection.head().status == 200
        while part := read_away(connection, 16 * MIB):
            read += part
            most = max(most, memory(here.pid))
    assert read >= mb * MIB
    return max(most, memory(here.pid)) - before


def test_a_reader_gets_all_of_it_without_growth_of_the_server(here):
    ask(here, "?mb=1")  # what the first stream makes once
    assert growth_while_all_is_read(here, 200) < 8 * MIB

    def read_more() -> None:
        # Nothing of the bytes stays: four times as many add nothing at all.
        assert growth_while_all_is_read(here, 800) < 2 * MIB

    three_tries(read_more)


def test_staff_only(here):
    assert ask(here, "?mb=1", None).status_code == 401
    assert ask(here, "?mb=1", "alice").status_code == 403
    assert len(ask(here, "?mb=2").content) == 2 * MIB


@pytest.mark.parametrize("query", ["", "?mb=", "?mb=0", "?mb=-1", "?mb=x", "?mb=1.5", "?mb=٣"])
def test_bad_amounts(here, query):
    assert ask(here, query).status_code == 400


@pytest.mark.parametrize("mb", ["1000001", "9" * 30, "9" * 6000, "0" * 19 + "5" + "0" * 6000])
def test_amounts_that_are_too_large(here, mb):
    assert ask(here, f"?mb={mb}").status_code == 400
