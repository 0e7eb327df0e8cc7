"""`NDJSONResponse` over real sockets: rows and values, stalls, errors, clients that leave."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.http import QueryDict
from django.test import override_settings

from docs.examples import ndjson_client, ndjson_values, ndjson_view
from realtime.conf import Settings
from realtime.exceptions import InvalidPosition
from realtime.streaming.ndjson import NDJSONResponse, after_and_limit

from ..support.attempts import three_tries
from ..support.databases import ON_POSTGRESQL
from ..support.servers import wait_until
from ..support.streaming import client, fill_items, open_files, open_transactions, streaming_site

ITEMS = 150_000  # more than fit between two sockets


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with streaming_site(_site_template, {"CURSOR_SECONDS": 1.5, "STREAM_CURSORS": 2}) as site:
        fill_items(site, ITEMS)
        # Of a client whose machine has stood still, too.
        site.server.expected.append("CURSOR_SECONDS")
        yield site


def lines(here: Any, path: str) -> list[Any]:
    answer = httpx.get(here.url + path, timeout=20)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def finished(here: Any) -> list[str]:
    return list(httpx.get(f"{here.url}/tests/inside").json()["finished"])


# -- values of an async source


def test_values_and_headers(here):
    answer = httpx.get(f"{here.url}/tests/values?count=2")
    assert answer.text == '{"n":0,"text":""}\n{"n":1,"text":""}\n'
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(f"{here.url}/tests/values?count=0").content == b""


def test_a_fast_source_comes_in_large_chunks(here):
    with client(here) as connection:
        connection.request("/tests/values?count=20000")
        assert connection.head().status == 200
        chunks = []
        while size := int(connection.until(b"\r\n"), 16):
            chunks.append(connection.exactly(size))
            connection.exactly(2)
    assert b"".join(chunks).count(b"\n") == 20_000
    assert len(chunks) < 20


def test_a_slow_source_is_not_late(here):
    def read() -> None:
        with client(here) as connection:
            connection.request("/tests/values?count=4&pause=0.6&stamp=1")
            connection.head()
            late = []
            for number in range(4):
                _, _, line = connection.until(b"\n\r\n").rpartition(b"\r\n{")
                value = json.loads(b"{" + line.strip())
                assert value["n"] == number
                # By the clock that both processes share: how late the stream is, not its source.
                late.append(time.monotonic() - float(value["text"]))
        assert max(late) < 0.6, "behind the next one"
        assert min(late) < 0.1, "a busy machine holds up one, but not all"

    three_tries(read)


def test_an_error_cuts_the_connection_after_the_last_value(here):
    here.server.expected.append("The source failed on purpose")
    with client(here) as connection:
        connection.request("/tests/values?count=9&fail=3")
        assert connection.head().status == 200
        rest = connection.rest()
    assert b'"n":2' in rest
    assert b'"n":3' not in rest
    assert b"0\r\n\r\n" not in rest  # the last chunk of a whole body
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{here.url}/tests/values?count=9&fail=3")


def test_a_source_ends_soon_after_its_client(here):
    with client(here) as connection:
        connection.request("/tests/values?count=999&pause=0.05&name=left")
        connection.until(b"\n\r\n")
    wait_until(lambda: "left" in finished(here), 10)  # by itself it would after 50 s


def test_a_stalled_client_stops_the_source_and_its_leaving_ends_it(here):
    with client(here, receive_buffer=4096) as connection:
        connection.request("/tests/values?count=100000000&size=1000&name=stalled")
        connection.head()
        time.sleep(0.3)
        assert "stalled" not in finished(here)
    wait_until(lambda: "stalled" in finished(here), 10)


# -- rows


def test_rows_by_cursor_are_all_there(here):
    def read() -> None:
        rows = lines(here, "/tests/by-cursor")
        assert len(rows) == len({row["id"] for row in rows}) == ITEMS
        assert rows[0].keys() == {"id", "name", "uuid"}

    three_tries(read)
    if ON_POSTGRESQL:
        wait_until(lambda: not open_transactions(here), 10)


@pytest.mark.skipif(ON_POSTGRESQL, reason="a server says itself what is open")
def test_a_cursors_connection_is_closed_with_it(here):
    def files() -> int:
        return open_files(here.pid, ".sqlite3")

    def read() -> None:
        httpx.get(f"{here.url}/tests/by-cursor")

    three_tries(read)
    before = files()
    for _ in range(Settings.TRANSFER_THREADS.default + 1):
        three_tries(read)
    # Threads keep a connection each, those that had nothing to do before the first one's too.
    wait_until(lambda: files() - before < Settings.TRANSFER_THREADS.default, 10)


def test_a_row_that_fails_cuts_the_connection(here):
    here.server.expected.append("This row can't be shown")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{here.url}/tests/by-row")
    wait_until(lambda: any("This row can't be shown" in line for line in here.log), 10)


def stalled(here: Any) -> Any:
    """A client that has read the first rows, and reads no more."""
    connection = client(here, receive_buffer=4096)
    connection.request("/tests/by-cursor")
    connection.head()
    connection.exactly(1000)
    return connection


@pytest.mark.skipif(not ON_POSTGRESQL, reason="only a server says what transactions it has")
def test_the_cursor_is_closed_within_a_second_of_its_clients_leaving(here):
    def leave() -> None:
        wait_until(lambda: not open_transactions(here), 10)
        with stalled(here):
            assert open_transactions(here) == 1
        started = time.monotonic()
        wait_until(lambda: not open_transactions(here), 10)
        assert time.monotonic() - started < 1

    three_tries(leave)


@pytest.mark.skipif(not ON_POSTGRESQL, reason="only a server says what transactions it has")
def test_the_cursor_of_a_stalled_client_is_closed_in_time_and_the_stream_cut(here):
    def stall() -> None:
        wait_until(lambda: not open_transactions(here), 10)
        with stalled(here) as connection:
            assert open_transactions(here) == 1
            wait_until(lambda: not open_transactions(here))
            assert not connection.rest().endswith(b"0\r\n\r\n")

    three_tries(stall)
    wait_until(lambda: any("CURSOR_SECONDS" in line for line in here.log), 10)


def test_further_streams_wait_for_a_cursor_until_one_is_taken_away(here):
    def come() -> None:
        started = time.monotonic()
        with stalled(here), stalled(here), client(here) as third:
            third.request("/tests/by-cursor", "Connection: close")
            third.head()  # which is sent at once; the rows have to wait
            third.until(b"\n")
            assert time.monotonic() - started >= 1.5  # CURSOR_SECONDS of the first
            assert third.rest().endswith(b"0\r\n\r\n")

    three_tries(come)


def at_rest(here: Any) -> bool:
    """Nobody asks the database anything, each time somebody looks; and no byte is sent."""
    before = Path(f"/proc/{here.pid}/stat").read_text().split()[13]
    for _ in range(10):
        if ON_POSTGRESQL and open_transactions(here):
            return False
        time.sleep(0.1)
    # Clock ticks of its own: to look takes next to none.
    return int(Path(f"/proc/{here.pid}/stat").read_text().split()[13]) - int(before) < 10


def test_stalled_clients_in_key_order_hold_nothing(here):
    connections = [client(here, receive_buffer=4096) for _ in range(20)]
    try:
        for connection in connections:
            connection.request("/stream/items")
            connection.head()
        # Until what fits between the sockets is there; then nothing moves, for a second.
        wait_until(lambda: at_rest(here), 20)
        inside = httpx.get(f"{here.url}/tests/inside").json()
        assert sum("transfer" in name for name in inside["threads"]) <= 4
        if ON_POSTGRESQL:
            assert open_transactions(here) == 0
    finally:
        for connection in connections:
            connection.close()


# -- what is refused


def test_a_synchronous_source_is_refused():
    with pytest.raises(TypeError, match="async def"):
        NDJSONResponse(iter([1, 2]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async for"):
        NDJSONResponse([1, 2])  # type: ignore[arg-type]


def test_a_queryset_has_to_say_what_may_be_seen():
    with pytest.raises(TypeError, match="fields"):
        NDJSONResponse(User.objects.all())
    with pytest.raises(TypeError, match="not both"):
        NDJSONResponse(User.objects.all(), fields=["id"], row=str)


async def _one() -> Any:
    yield 1


def test_after_and_limit_are_for_querysets():
    source = _one()
    with pytest.raises(TypeError, match="querysets"):
        NDJSONResponse(source, limit=3)
    with pytest.raises(TypeError, match="order the queryset"):
        NDJSONResponse(User.objects.order_by("-pk"), fields=["id"], after=3)


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "", " 1", "٣", "9" * 30])
def test_a_limit_that_is_none(rf, limit):
    request = rf.get("/")
    request.GET = QueryDict(mutable=True)
    request.GET["limit"] = limit
    with pytest.raises(InvalidPosition, match="limit"):
        after_and_limit(request)


def test_a_limit(rf):
    assert after_and_limit(rf.get("/?limit=5&after=7")) == {"after": "7", "limit": 5}
    assert after_and_limit(rf.get("/")) == {"after": None, "limit": None}


# -- in this process


@pytest.mark.django_db(transaction=True)
async def test_the_ways_to_name_columns():
    await User.objects.abulk_create([User(username=f"user{n}") for n in range(5)])
    first = await User.objects.order_by("pk").afirst()

    async def read(*args: Any, **kwargs: Any) -> list[Any]:
        response = NDJSONResponse(*args, **kwargs)
        body = b"".join([part async for part in response])
        return [json.loads(line) for line in body.splitlines()]

    users = User.objects.all()
    by_fields = await read(users, fields=("id", "username"))
    assert by_fields[0] == {"id": first.pk, "username": "user0"}
    assert len(by_fields) == 5
    assert await read(users.values("id", "username")) == by_fields
    by_row = await read(users, row=lambda user: {"id": user.pk, "username": user.username})
    assert by_row == by_fields
    assert await read(users.values("id", "username"), after=first.pk, limit=2) == by_fields[1:3]
    assert await read(users, fields=("id", "username"), limit=0) == []
    backwards = users.order_by("-pk").values("id", "username")
    assert await read(backwards) == by_fields[::-1]
    assert await read(backwards, limit=2) == by_fields[:2:-1]
    assert await read(users.none(), fields=("id",)) == []


# -- the examples in docs/ndjson.md


@pytest.mark.django_db(transaction=True)
async def test_the_examples(async_rf):
    await Group.objects.abulk_create([Group(name=name) for name in "abc"])
    response = await ndjson_view.groups(async_rf.get("/?limit=2"))
    names = [json.loads(line)["name"] for line in (await body_of(response)).splitlines()]
    assert names == ["a", "b"]
    response = await ndjson_values.squares(async_rf.get("/"))
    assert (await body_of(response)).splitlines()[-1] == b'{"number":999,"square":998001}'


async def body_of(response: Any) -> bytes:
    return b"".join([part async for part in response])


@pytest.mark.django_db(transaction=True)
@override_settings(REALTIME={"UNWRITABLE_ROWS": "error"})
async def test_a_line_stands_for_a_row_that_can_not_be_written():
    groups = await Group.objects.abulk_create([Group(name=name) for name in "abc"])

    def row(group: Group) -> float:
        return math.nan if group.name == "b" else group.pk

    async def values() -> Any:
        for group in groups:
            yield row(group)

    for response, key in (
        (NDJSONResponse(Group.objects.all(), row=row), groups[1].pk),
        (NDJSONResponse(Group.objects.order_by("name"), row=row), groups[1].pk),
        (NDJSONResponse(values()), None),
    ):
        first, error, last = map(json.loads, (await body_of(response)).splitlines())
        assert (first, last) == (groups[0].pk, groups[2].pk)
        assert error == {"error": {"key": key, "detail": "This row can't be written as JSON."}}


@pytest.mark.django_db(transaction=True)
async def test_without_the_setting_it_is_cut():
    await Group.objects.acreate(name="a")
    with pytest.raises(ValueError, match="JSON"):
        await body_of(NDJSONResponse(Group.objects.all(), row=lambda group: math.nan))


def test_a_client_that_goes_on_after_a_cut(here, monkeypatch):
    here.server.expected.append("This row can't be shown")
    whole, tries = httpx.stream, []

    def cut_once(method: str, url: str, **options: Any) -> Any:
        tries.append(options["params"]["after"])
        # The view that fails at every thousandth row stands for a server that was killed.
        return whole(method, here.url + ("/tests/by-row" if len(tries) == 1 else url), **options)

    monkeypatch.setattr(httpx, "stream", cut_once)
    monkeypatch.setattr(ndjson_client, "time", SimpleNamespace(sleep=tries.append))
    rows = ndjson_client.rows("/stream/items")
    first = [next(rows) for _ in range(900)]
    rest = list(rows)
    assert [row["id"] for row in first + rest] == list(range(1, ITEMS + 1))
    assert len(tries) == 3
    assert 0 < tries[2] < 1000
    assert tries[1] == 1  # a second's pause


def test_a_client_ends_where_it_is_cut_at_the_same_row_each_time(here, monkeypatch):
    here.server.expected.append("This row can't be shown")
    pauses: list[float] = []
    monkeypatch.setattr(ndjson_client, "time", SimpleNamespace(sleep=pauses.append))
    came: list[int] = []
    rows = ndjson_client.rows(here.url + "/tests/by-row")
    with pytest.raises(httpx.RemoteProtocolError):
        came.extend(row["id"] for row in rows)
    assert came == list(range(1, len(came) + 1))
    assert 0 < len(came) < 1000
    assert pauses
