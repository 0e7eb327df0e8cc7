"""`GET /topics/<topic>/history` over a real socket, and the permission that is lost meanwhile."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User

from realtime.access.identity import Identity
from realtime.events.position import OLDEST
from realtime.exceptions import HistoryGone, NotAllowed
from realtime.http.history import HistoryResponse

from ..support.clients import bearer, publish
from ..support.fakes import FaultyLog
from ..support.hubs import stage
from ..support.sites import site_for_module


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    constants = {"LOG_PAGE_EVENTS": 4, "ALLOWED_ORIGINS": ["https://app.example.com"]}
    with site_for_module(_site_template, constants) as site:
        yield site


def get(here: Any, path: str, user: str | None = "alice", **headers: str) -> httpx.Response:
    token = bearer(here.tokens[user]) if user else {}
    return httpx.get(here.url + path, headers={**token, **headers})


def lines(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_all_that_is_kept(here):
    topic = "room.history"
    ids = [publish(here, here.tokens["alice"], topic, {"n": n, "é": "\n"}) for n in range(10)]
    ids.append(publish(here, here.tokens["alice"], topic, "end", type="end"))
    answer = get(here, f"/topics/{topic}/history")
    assert answer.headers["content-type"] == "application/x-ndjson"
    events = lines(answer)
    assert [event["id"] for event in events] == ids
    assert events[0] == {"id": ids[0], "event": "message", "data": {"n": 0, "é": "\n"}}
    assert events[-1] == {"id": ids[-1], "event": "end", "data": "end"}
    with_meta = lines(get(here, f"/topics/{topic}/history?meta=1"))
    assert {event.pop("meta")["sender"]["username"] for event in with_meta} == {"alice"}
    assert with_meta == events
    after = lines(get(here, f"/topics/{topic}/history?after={ids[2]}"))
    assert after == events[3:]
    for limit in (0, 1, 4, 5, 11, 99):
        path = f"/topics/{topic}/history?after=0&limit={limit}"
        assert lines(get(here, path)) == events[:limit]
    assert lines(get(here, f"/topics/{topic}/history?after={ids[-1]}")) == []


def test_a_topic_without_events(here):
    assert lines(get(here, "/topics/room.empty/history")) == []
    assert lines(get(here, "/topics/room.empty/history?after=new-0")) == []


def test_history_that_is_gone_is_said_to_be_gone(here):
    head = publish(here, here.tokens["alice"], "room.gone", 1)
    for after in ("foreign0-1", f"{head.partition('-')[0]}-999"):
        answer = get(here, f"/topics/room.gone/history?after={after}")
        assert answer.status_code == 410
        assert answer.json()["id"] == head
        assert "no longer" in answer.json()["detail"]
        assert answer.json()["code"] == "history_gone"


@pytest.mark.parametrize(
    "query", ["after=x", "after=", "after=-1", "after=new-1", "limit=x", "limit=-1", "limit="]
)
def test_bad_ids_and_limits(here, query):
    answer = get(here, f"/topics/room.a/history?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_history_needs_the_right_to_read(here):
    assert get(here, "/topics/room.a/history", None).status_code == 401
    assert get(here, "/topics/secret/history").status_code == 403
    assert get(here, "/topics/secret/history", "admin").status_code == 200
    assert get(here, "/topics/a%20b/history").status_code == 400
    foreign = get(here, "/topics/public.a/history", None, Origin="https://evil.example.com")
    assert foreign.status_code == 403
    allowed = get(here, "/topics/public.a/history", None, Origin="https://app.example.com")
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    assert httpx.post(f"{here.url}/topics/public.a/history").status_code == 405


async def some_history(log: FaultyLog, count: int) -> HistoryResponse:
    for number in range(count):
        log.put("room.a", "message", str(number))
    identity = Identity(User(pk=1), "anonymous")
    return await HistoryResponse.begin(identity, "room.a", OLDEST, None)


async def test_what_is_published_meanwhile_is_not_waited_for():
    with stage(LOG_PAGE_EVENTS=2) as (_, log):
        response = await some_history(log, 5)
        body = b""
        async for part in response:
            body += part
            log.put("room.a", "message", '"later"')
        assert [json.loads(line)["data"] for line in body.splitlines()] == [0, 1, 2, 3, 4]


async def test_history_that_goes_meanwhile_cuts_the_stream():
    with stage(LOG_PAGE_EVENTS=2) as (_, log):
        parts = aiter(await some_history(log, 9))
        await anext(parts)
        log.drop("room.a", keep=1)
        with pytest.raises(HistoryGone):
            await anext(parts)


async def test_a_history_is_cut_off_when_its_reader_loses_the_right():
    with stage(LOG_PAGE_EVENTS=2) as (_, log):
        response = await some_history(log, 9)
        parts = aiter(response)
        await anext(parts)
        await response.recheck(None)
        with pytest.raises(NotAllowed):
            await anext(parts)
        await asyncio.sleep(0)
