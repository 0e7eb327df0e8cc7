"""`realtime.delivery.publish`: from anywhere, committed or not at all, whatever the layer does."""

import asyncio
import datetime
import decimal
import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.translation import gettext_lazy
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from realtime.delivery import pending
from realtime.delivery.hub import get_hub
from realtime.delivery.publish import apublish, asend_to_user, publish, publish_now, send_to_user
from realtime.delivery.subscription import Subscription
from realtime.eventlog import writer
from realtime.events.event import Event
from realtime.exceptions import (
    DataTooLarge,
    InvalidData,
    InvalidEventType,
    InvalidKey,
    InvalidTopic,
    KeyReused,
)
from realtime.models import Event as EventRow
from realtime.models import Topic

from ..support.clients import eventually
from ..support.layers import RecordingLayer, data_sent, layer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_second_chance():
    """An event that was not announced must not be found by the check of the heads."""
    with override_settings(REALTIME={"HEAD_CHECK_SECONDS": 1_000.0}):
        yield


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), '"2026-01-02T03:00:00Z"'),
        (datetime.timedelta(hours=1), '"P0DT01H00M00S"'),
        (decimal.Decimal("1.50"), '"1.50"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (gettext_lazy("Monday"), '"Monday"'),
    ],
)
@pytest.mark.parametrize("way", [publish, async_to_sync(apublish), async_to_sync(publish_now)])
def test_what_djangos_json_encoder_writes_is_published(way, value, json):
    assert way("room.a", {"value": value}).data == f'{{"value":{json}}}'


class Listener:
    """A subscriber in a loop of its own, in a thread of its own: what a server process has."""

    def __init__(self, *topics: str) -> None:
        self._topics = topics
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with Subscription() as self._subscription:
            for topic in self._topics:
                await self._subscription.add(topic)
            self._ready.set()
            async for item in self._subscription:
                self._heard.put(item)

    def take(self, count: int) -> list[Event]:
        """The next events, as many as that."""
        return [self._heard.get(timeout=10) for _ in range(count)]

    def heard(self) -> list[Event]:
        """What was heard until now."""
        # What a publisher in another thread has handed to the loop comes before this.
        asyncio.run_coroutine_threadsafe(self._settle(), self._loop).result(10)
        events = []
        while not self._heard.empty():
            events.append(self._heard.get_nowait())
        return events

    async def _settle(self) -> None:
        feeds = get_hub().feeds.values()
        while not self._subscription.is_waiting or any(
            feed._catching_up is not None and not feed._catching_up.done() for feed in feeds
        ):
            await asyncio.sleep(0.001)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._subscription.close)
        self._thread.join(10)


@contextmanager
def listening(*topics: str) -> Iterator[Listener]:
    listener = Listener(*topics)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening("a", "b") as running:
        yield running


def in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    results = []

    def run() -> None:
        try:
            results.append(function(*args, **kwargs))
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return results[0]


def stored() -> list[tuple[str, int, str, str]]:
    rows = EventRow.objects.order_by("pk")
    return list(rows.values_list("topic__name", "offset", "type", "data"))


# -- from anywhere


def test_what_it_returns_is_what_is_stored_and_heard(listener):
    event = publish("a", {"text": "ž"}, type="said")
    assert stored() == [("a", 1, "said", '{"text":"ž"}')]
    assert (event.topic, event.offset, event.type, event.data) == stored()[0]
    assert listener.take(1) == [event]


def sync_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(publish("a", "from a view").id)


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse((await apublish("a", "from a view")).id)


urlpatterns = [path("sync", sync_view), path("async", async_view)]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("view", ["sync", "async"])
def test_from_a_view(listener, view):
    answer = Client().get(f"/{view}")
    [event] = listener.take(1)
    assert (event.id, event.data) == (answer.content.decode(), '"from a view"')


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("view", ["sync", "async"])
async def test_from_a_view_under_asgi(view):
    async with Subscription() as subscription:
        await subscription.add("a")
        answer = await AsyncClient().get(f"/{view}")
        [event] = await subscription.read(10)
    assert event.id == answer.content.decode()
    await sync_to_async(connections.close_all)()  # those of the thread that served the request


def test_from_another_thread(listener):
    event = in_thread(publish, "a", 1)
    assert listener.take(1) == [event]


@pytest.mark.parametrize("way", [publish, async_to_sync(apublish), async_to_sync(publish_now)])
@pytest.mark.parametrize("ephemeral", [False, True])
def test_metadata_goes_with_the_event(listener, way, ephemeral):
    event = way("a", 1, meta={"at": datetime.date(2026, 1, 2)}, ephemeral=ephemeral)
    assert event.meta == '{"at":"2026-01-02"}'
    assert listener.take(1) == [event]
    assert list(EventRow.objects.values_list("meta", flat=True)) == [event.meta] * (not ephemeral)


@pytest.mark.parametrize("way", [publish, async_to_sync(apublish), async_to_sync(publish_now)])
@override_settings(REALTIME={"MAX_META_BYTES": 10})
def test_the_span_it_is_published_in_stands_in_its_metadata(way):
    span = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
    with use_span(span):
        event = way("a", 1, meta={"a": "12"})
    assert event.meta == f'{{"a":"12","traceparent":"00-{1:032x}-{2:016x}-01"}}'
    assert way("a", 1).meta is None
    assert EventRow.objects.values_list("meta", flat=True).first() == event.meta


@override_settings(REALTIME={"MAX_META_BYTES": 10})
def test_too_much_metadata_stores_nothing():
    publish("a", 1, meta={"a": "12"})
    with pytest.raises(DataTooLarge, match="MAX_META_BYTES"):
        publish("a", 1, meta={"a": "123"})
    assert EventRow.objects.count() == 1


WAYS = pytest.mark.parametrize(
    "way", [publish, async_to_sync(apublish), async_to_sync(publish_now)]
)


@WAYS
def test_what_is_published_again_with_its_key_is_stored_and_heard_once(listener, way):
    first, second = way("a", 1, key="k"), way("a", 1, key="k")
    assert (first.is_repeated, second.is_repeated) == (False, True)
    assert second.id == first.id
    last = way("a", 2)
    assert listener.take(2) == [first, last]
    assert listener.heard() == []
    assert len(stored()) == 2


@WAYS
def test_a_key_is_one_of_its_publisher(way):
    first = way("a", 1, key="k")
    assert way("a", 2, key="k", publisher="user.7").offset == first.offset + 1
    with pytest.raises(KeyReused):
        way("a", 2, key="k")
    assert len(stored()) == 2


@WAYS
@pytest.mark.parametrize("options", [{"key": ""}, {"key": 7}, {"key": "k", "ephemeral": True}])
def test_a_key_that_is_of_no_use_is_refused(way, options):
    with pytest.raises(InvalidKey):
        way("a", 1, **options)
    assert stored() == []


def test_publish_now(listener):
    event = async_to_sync(publish_now)("a", 1)
    assert stored() == [("a", 1, "message", "1")]
    assert listener.take(1) == [event]


def test_send_to_user():
    with listening("user.7") as listener:
        event = send_to_user(7, {"n": 1}, type="note")
        other = async_to_sync(asend_to_user)(7, {"n": 2}, type="note")
        assert listener.take(2) == [event, other]
    assert stored() == [("user.7", 1, "note", '{"n":1}'), ("user.7", 2, "note", '{"n":2}')]


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_the_sync_twin_is_refused_in_an_event_loop(ephemeral):
    with pytest.raises(SynchronousOnlyOperation, match=r"`await realtime\.apublish\("):
        publish("a", 1, ephemeral=ephemeral)


def test_every_loop_of_the_process_hears_it_once():
    with layer(None), listening("a") as one, listening("a") as other:
        event = publish("a", 1)
        assert one.heard() == other.heard() == [event]


# -- committed or not at all


def test_in_a_transaction_it_is_heard_after_the_commit(listener):
    with transaction.atomic():
        event = publish("a", 1)
        assert event.offset == 1
        assert listener.heard() == []
    assert listener.heard() == [event]


@pytest.mark.parametrize("ephemeral", [False, True])
def test_in_a_transaction_that_is_rolled_back_it_is_gone(listener, ephemeral):
    with transaction.atomic():
        publish("a", 1, ephemeral=ephemeral)
        transaction.set_rollback(True)
    assert listener.heard() == []
    assert stored() == []
    assert publish("a", 2).offset == 1


def test_a_key_of_a_transaction_that_is_rolled_back_is_free(listener):
    with transaction.atomic():
        publish("a", 1, key="k")
        transaction.set_rollback(True)
    event = publish("a", 2, key="k")
    assert not event.is_repeated
    assert listener.take(1) == [event]


def test_a_savepoint_that_is_rolled_back(listener):
    with transaction.atomic():
        first = publish("a", 1)
        with transaction.atomic():
            publish("a", 2)
            publish("b", 3)
            transaction.set_rollback(True)
        with transaction.atomic():
            last = publish("a", 4)
    assert listener.heard() == [first, last]
    assert [(topic, offset) for topic, offset, _, _ in stored()] == [("a", 1), ("a", 2)]


def test_apublish_joins_the_transaction_around_async_to_sync(listener):
    with transaction.atomic():
        async_to_sync(apublish)("a", 1)
        assert stored() == [("a", 1, "message", "1")]
        assert listener.heard() == []
        transaction.set_rollback(True)
    assert stored() == []
    with transaction.atomic():
        event = async_to_sync(apublish)("a", 2)
    assert listener.heard() == [event]
    assert event.offset == 1


def test_the_sites_own_hooks_run_even_if_the_announcement_fails(monkeypatch, caplog):
    def fail(events: list[Event]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pending, "announce", fail)
    ran = []
    with transaction.atomic():
        publish("a", 1)
        transaction.on_commit(lambda: ran.append(1))
    assert ran == [1]
    assert len(stored()) == 1
    assert "ZeroDivisionError" in caplog.text


# -- ephemeral


def test_an_ephemeral_event_leaves_nothing_behind(listener):
    event = publish("a", "typing", type="typing", ephemeral=True)
    assert event.id is None
    assert listener.heard() == [event]
    assert (EventRow.objects.count(), Topic.objects.count()) == (0, 0)


@pytest.mark.parametrize("function", [apublish, publish_now])
def test_an_ephemeral_event_from_async_code(listener, function):
    event = async_to_sync(function)("a", "typing", ephemeral=True)
    assert listener.heard() == [event]
    assert (event.id, EventRow.objects.count()) == (None, 0)


# -- a caller that is cancelled


@contextmanager
def slow_append(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Appending takes a while; events that it has begun, and that it may go on."""
    begun, go_on, append = threading.Event(), threading.Event(), writer.insert

    def slow(new: writer.Append) -> None:
        begun.set()
        assert go_on.wait(10)
        append(new)

    monkeypatch.setattr(writer, "insert", slow)
    yield begun, go_on


async def _cancelled(
    begun: threading.Event, go_on: threading.Event, announced: Callable[[], Any]
) -> None:
    task = asyncio.create_task(publish_now("a", 1))
    while not begun.is_set():
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await eventually(announced)
    await asyncio.sleep(0.1)  # for what should not come: a second time


def test_an_event_whose_publisher_left_is_announced(listener, monkeypatch):
    with slow_append(monkeypatch) as (begun, go_on):
        asyncio.run(_cancelled(begun, go_on, lambda: not listener._heard.empty()))
    assert [event.data for event in listener.take(1)] == ["1"]
    assert len(stored()) == 1


def test_an_event_whose_publisher_left_is_announced_to_other_processes(monkeypatch):
    with slow_append(monkeypatch) as (begun, go_on), layer(RecordingLayer):
        asyncio.run(_cancelled(begun, go_on, lambda: RecordingLayer.sent))
    assert data_sent() == ["1"]


# -- many, and wrong ones


def test_a_thousand_in_a_row(listener):
    with transaction.atomic():  # one commit: it is the announcing that is tried here
        events = [publish("a", n) for n in range(1_000)]
    assert listener.take(1_000) == events
    assert [event.offset for event in events] == list(range(1, 1_001))


def publish_from_a_loop(*args: Any, **kwargs: Any) -> Event:
    return async_to_sync(publish_now)(*args, **kwargs)


@pytest.mark.parametrize("way", [publish, publish_from_a_loop])
@pytest.mark.parametrize(
    ("topic", "data", "type", "error"),
    [
        ("a b", 1, "message", InvalidTopic),
        (None, 1, "message", InvalidTopic),
        ("a", float("nan"), "message", InvalidData),
        ("a", {1: 2}, "message", InvalidData),
        ("a", object(), "message", InvalidData),
        ("a", [10**5000], "message", InvalidData),
        ("a", "x" * 65_535, "message", DataTooLarge),
        ("a", 1, "", InvalidEventType),
        ("a", 1, "reset", InvalidEventType),
        ("a", 1, "a\nb", InvalidEventType),
        ("a", 1, None, InvalidEventType),
    ],
)
def test_what_is_invalid_is_neither_stored_nor_announced(way, topic, data, type, error):
    with layer(RecordingLayer), pytest.raises(error):
        way(topic, data, type=type)
    assert RecordingLayer.sent == []
    assert Topic.objects.count() == 0


def test_the_limit_is_a_setting():
    with override_settings(REALTIME={"MAX_EVENT_BYTES": 3}):
        assert publish("a", "b").data == '"b"'
        with pytest.raises(DataTooLarge):
            publish("a", "bc")
    assert len(stored()) == 1
