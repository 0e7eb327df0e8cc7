"""`realtime.delivery.progress`: a job's steps as events, whatever becomes of the job."""

import asyncio
import json
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from realtime.delivery.hub import positions_now
from realtime.delivery.progress import Progress
from realtime.delivery.subscription import Subscription
from realtime.exceptions import InvalidTopic
from realtime.testing import memory_log

TOPIC = "user.1.job"


def told(log: Any) -> list[tuple[str, Any]]:
    return [(event.type, json.loads(event.data)) for event in log.events(TOPIC)]


@pytest.fixture
def log():
    with memory_log() as log:
        yield log


def test_a_topic_that_is_none():
    with pytest.raises(InvalidTopic):
        Progress("no topic")


@pytest.mark.django_db(transaction=True)
def test_a_sync_job(log):
    options = {"EVENT_LOG": lambda: log, "PROGRESS_SECONDS": 1e-9}
    with override_settings(REALTIME=options), Progress(TOPIC, of=3) as progress:
        progress.update()
        progress.update(text="reading")
        progress.update(3)
    assert told(log) == [
        ("message", {"step": 1, "of": 3}),
        ("message", {"step": 2, "of": 3, "text": "reading"}),
        ("message", {"step": 3, "of": 3}),
        ("done", {"step": 3, "of": 3}),
    ]


async def test_an_async_job(log):
    with override_settings(REALTIME={"EVENT_LOG": lambda: log, "PROGRESS_SECONDS": 1e-9}):
        async with Progress(TOPIC) as progress:
            await progress.aupdate()
            await progress.aupdate(10)
    assert told(log) == [
        ("message", {"step": 1, "of": None}),
        ("message", {"step": 10, "of": None}),
        ("done", {"step": 10, "of": None}),
    ]


async def test_steps_in_quick_succession_are_told_now_and_then(log):
    async with Progress(TOPIC, of=1000) as progress:
        for _ in range(1000):
            await progress.aupdate()
    steps = [data["step"] for _, data in told(log)]
    assert (steps[0], steps[-2], steps[-1]) == (1, 1000, 1000)
    assert len(steps) < 50


async def test_a_job_that_fails_says_so_but_not_why(log):
    async def job() -> None:
        async with Progress(TOPIC, of=9) as progress:
            await progress.aupdate()
            raise ZeroDivisionError("secret")

    with pytest.raises(ZeroDivisionError):
        await job()
    assert told(log)[-1] == ("error", {"step": 1, "of": 9, "detail": "The job failed."})


async def test_a_job_that_is_cancelled(log):
    async def job() -> None:
        async with Progress(TOPIC):
            await asyncio.Event().wait()

    task = asyncio.create_task(job())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    ((kind, data),) = told(log)
    assert (kind, data["detail"]) == ("error", "The job was cancelled.")


async def test_a_step_that_can_not_be_told_does_not_fail_the_job(log, caplog):
    async with Progress(TOPIC) as progress:
        await progress.aupdate(text=object())
    assert [kind for kind, _ in told(log)] == ["done"]
    assert "can't be published" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_sync_step_that_can_not_be_told(log, caplog):
    with Progress(TOPIC) as progress:
        progress.update(text=object())
    assert "can't be published" in caplog.text


class Listener:
    """What comes on the topic, as somebody who subscribes gets it."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def next(self) -> tuple[str, Any]:
        (event,) = await self._subscription.read(5)
        return event.type, json.loads(event.data)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fails", [False, True])
async def test_inside_a_transaction(fails):
    """The steps are seen while it is open; `done` when it has committed."""
    going, seen = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def job() -> None:
        with transaction.atomic(), Progress(TOPIC, of=2) as progress:
            progress.update()
            loop.call_soon_threadsafe(going.set)
            asyncio.run_coroutine_threadsafe(seen.wait(), loop).result(5)
            if fails:
                raise ZeroDivisionError

    async with Subscription() as subscription:
        position = (await positions_now([TOPIC]))[TOPIC]
        await subscription.add(TOPIC, position)
        listener = Listener(subscription)
        task = asyncio.create_task(asyncio.to_thread(_closing, job))
        assert await listener.next() == ("message", {"step": 1, "of": 2})
        await going.wait()
        seen.set()
        kind, _ = await listener.next()
        assert kind == ("error" if fails else "done")
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, ZeroDivisionError) == fails


def _closing(job: Any) -> None:
    from django.db import connections

    try:
        job()
    finally:
        connections.close_all()


@pytest.mark.django_db
def test_a_log_without_transactions_holds_no_step_back(log):
    with transaction.atomic(), Progress(TOPIC, of=2) as progress:
        progress.update()
        assert told(log) == [("message", {"step": 1, "of": 2})]
        progress.update()
    assert [type for type, _ in told(log)] == ["message", "message", "done"]
