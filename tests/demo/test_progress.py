"""`/progress` over real sockets."""

import json
import time
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from ..conftest import _site_template  # noqa: F401 - this folder has no database of its own
from ..support.attempts import three_tries_of
from ..support.clients import bearer, eventually, open_stream
from ..support.sites import site_for_module


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:  # noqa: F811
    with site_for_module(_site_template, {}) as site:
        yield site


def get(here: Any, query: str, **headers: str) -> httpx.Response:
    headers = {**bearer(here.tokens["alice"]), **headers}
    return httpx.get(f"{here.url}/progress?{query}", headers=headers, timeout=20)


def has_ended(here: Any, steps: int) -> bool:
    return any(f"The job of {steps} steps has ended" in line for line in here.log)


async def test_steps_and_done(here):
    headers = bearer(here.tokens["alice"])
    url = f"{here.url}/progress?steps=3&interval=0.2"
    began = time.monotonic()  # before: the first step does not wait for who is slow to look
    async with open_stream(url, headers=headers) as stream:
        events = [await stream.next() for _ in range(4)]
        assert time.monotonic() - began >= 0.5
        await stream.ended()
    assert [json.loads(event.data) for event in events] == [
        {"step": step, "of": 3} for step in (1, 2, 3, 3)
    ]
    assert [event.event for event in events] == ["message"] * 3 + ["done"]


def test_it_goes_on_where_it_was(here):
    answer = get(here, "steps=3&interval=0", **{"Last-Event-ID": "2"})
    assert answer.text.count("data: ") == 2
    assert '{"step": 3, "of": 3}' in answer.text
    assert get(here, "steps=3&interval=0", **{"Last-Event-ID": "3"}).status_code == 204


@pytest.mark.parametrize(
    "query",
    [
        *(f"steps={steps}" for steps in ("0", "-1", "1.5", "x", "", "10001", "nan", "inf")),
        *(f"interval={interval}" for interval in ("-1", "x", "", "61", "nan", "inf")),
    ],
)
def test_bounds(here, query):
    answer = get(here, query)
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["detail"]


def test_progress_needs_a_signed_in_user(here):
    assert httpx.get(f"{here.url}/progress?steps=1").status_code == 401


async def test_a_disconnect_reaches_finally_within_a_second(here):
    headers = bearer(here.tokens["alice"])
    numbers = count(700)

    async def leave() -> None:
        steps = next(numbers)
        url = f"{here.url}/progress?steps={steps}&interval=0.05"
        async with open_stream(url, headers=headers) as stream:
            await stream.next()
            await stream.next()
        await eventually(lambda: has_ended(here, steps), 1, "finally")

    await three_tries_of(leave)


async def test_also_while_it_works_and_sends_nothing(here):
    headers = bearer(here.tokens["alice"])
    numbers = count(710)

    async def leave() -> None:
        steps = next(numbers)
        url = f"{here.url}/progress?steps={steps}&interval=30"
        async with open_stream(url, headers=headers) as stream:
            with pytest.raises(TimeoutError):
                await stream.next(0.3)
        await eventually(lambda: has_ended(here, steps), 1, "finally")

    await three_tries_of(leave)
