"""A subscription as server-sent events, chunk by chunk."""

import asyncio
import json
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from realtime.access.connections import get_connections
from realtime.access.identity import ANONYMOUS, Identity
from realtime.delivery.fanout import WRITE_BYTES, WRITE_EVENTS
from realtime.delivery.hub import running_hubs
from realtime.delivery.publish import publish_now
from realtime.events.event import Event
from realtime.events.payload import encode_data
from realtime.events.position import OLDEST, START, Position
from realtime.http import topic_stream
from realtime.http.topic_stream import (
    TopicStreamResponse,
    encode_event,
    encode_multiplexed_event,
    encode_reset,
)
from realtime.limits.client import Client
from realtime.metrics.live_connections import CLOSED
from realtime.streaming.sse import KEEPALIVE

from ..support.clients import eventually
from ..support.event_streams import Stream, httpx_events
from ..support.fakes import LogFailed, Noise
from ..support.hubs import stage
from ..support.lanes import FakeLane

TOPIC = "public.a"


@pytest.fixture
def world():
    with stage(KEEPALIVE_SECONDS=60.0, HEAD_CHECK_SECONDS=0.1) as parts:
        yield parts


@pytest.fixture(autouse=True)
async def _nothing_left(world):
    yield
    await eventually(lambda: not get_connections().connections)
    await get_connections().close()  # which would listen a little longer
    await eventually(lambda: not running_hubs())
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


def response(*topics: str, lane: FakeLane | None = None, **options: Any) -> TopicStreamResponse:
    scope = {"extensions": {"realtime.lane": {"lane": lane}} if lane else {}}
    after = options.pop("after", {})
    options.setdefault("combined", len(topics) > 1)
    return TopicStreamResponse(scope, Client(ANONYMOUS, scope), topics, after, **options)


async def nobody(user: Any, topic: str, action: str) -> bool:
    return False


async def test_what_comes_between_the_head_of_the_answer_and_its_body_is_not_lost(world, settings):
    """Also where the topic has a state, kept or not: the client knows of where it stood."""
    _, log = world
    now = log.put(TOPIC, "message", "1").position
    for data in "23":
        log.put(TOPIC, "message", data)
    for is_state, keep, expected in (
        (False, 3, [b"data: 2", b"data: 3"]),
        (True, 3, [b"data: 1", b"data: 2", b"data: 3"]),
        (True, 2, [b"data: 2", b"data: 3"]),
    ):
        settings.REALTIME = {**settings.REALTIME, "TOPICS": {TOPIC: {"STATE": is_state}}}
        log.drop(TOPIC, keep)
        events = response(TOPIC, now={TOPIC: now})._events()
        assert b"reset" not in await anext(events)
        lines = (await anext(events)).splitlines()
        assert [line for line in lines if line.startswith(b"data")] == expected
        await events.aclose()


async def test_it_opens_with_where_it_stands_and_keeps_alive(world, settings):
    _, log = world
    settings.REALTIME = {**settings.REALTIME, "KEEPALIVE_SECONDS": 0.05}
    log.put(TOPIC, "message", "1")
    stream = aiter(response(TOPIC))
    assert await anext(stream) == b"id: epoch001-1\nretry: 2000\n\n"
    assert await anext(stream) == KEEPALIVE
    assert await anext(stream) == KEEPALIVE
    await publish_now(TOPIC, {"a": 1})
    got = await anext(stream)
    while got == KEEPALIVE:
        got = await anext(stream)
    assert got == b'id: epoch001-2\ndata: {"a":1}\n\n'
    await stream.aclose()


async def test_from_a_position_nothing_comes_that_a_client_takes_for_an_event(world):
    _, log = world
    log.put(TOPIC, "message", "1")
    stream = aiter(response(TOPIC, after={TOPIC: Position("epoch001", 1)}, is_resumed=True))
    opening = await anext(stream)
    await publish_now(TOPIC, 2, ephemeral=True)
    sent = opening + await anext(stream)
    await stream.aclose()
    # By EventSource, which has the id at once for the event without one, and by httpx-sse.
    expected = [("message", "2", "epoch001-1")]
    assert Stream(sent).events == expected
    decoder = SSEDecoder()
    decoded = [decoder.decode(line) for line in sent.decode().splitlines()]
    assert [(e.event, e.data, e.id) for e in decoded if e is not None] == expected


async def test_history_that_is_gone_is_in_the_opening(world):
    _, log = world
    log.put(TOPIC, "message", "1")
    stream = aiter(response(TOPIC, after={TOPIC: Position("foreign0", 1)}))
    opening = await anext(stream)
    assert opening.endswith(
        b'event: reset\nid: epoch001-1\ndata: {"topic":"public.a","id":"epoch001-1"}\n\n'
    )
    await stream.aclose()


async def test_a_combined_id_covers_all_topics_and_moves_with_each(world):
    _, log = world
    for topic in ("public.a", "public.b"):
        log.put(topic, "message", "1")
    after = {"public.a": OLDEST, "public.b": START}
    stream = aiter(response("public.a", "public.b", after=after))
    assert b"id: public.a=0,public.b=new-0\n" in await anext(stream)
    both = await anext(stream) + await anext(stream)
    assert b"id: public.a=epoch001-1,public.b=epoch002-1\n" in both
    await publish_now("public.b", 1, ephemeral=True)
    ephemeral = await anext(stream)
    while ephemeral == KEEPALIVE:
        ephemeral = await anext(stream)
    assert ephemeral == b'data: {"topic":"public.b","data":1}\n\n'
    await stream.aclose()


async def test_no_more_is_made_than_goes_out_at_once(world, monkeypatch):
    """Each id of a combined stream has the positions of all topics, and each reset too."""
    made = 0

    def encode(*args: Any, **options: Any) -> bytes:
        nonlocal made
        made += 1
        return encode_multiplexed_event(*args, **options)

    monkeypatch.setattr(topic_stream, "encode_multiplexed_event", encode)
    _, log = world
    topics = [f"public.{index:092}" for index in range(50)]
    for _ in range(200):
        log.put(topics[0], "message", "1")
    after = {topic: Position("foreign0", 1) for topic in topics[1:]} | {topics[0]: OLDEST}
    stream = response(*topics, after=after)._events()
    sent, got = b"", 0
    while got < 200:
        part = await anext(stream)
        assert len(part) <= WRITE_BYTES
        sent, got = sent + part, got + part.count(b'"data":1')
        assert made <= got + 1
    assert [event.type for event in Stream(sent).events].count("reset") == 49
    await stream.aclose()


async def test_not_too_many_events_go_out_at_once(world):
    _, log = world
    for _ in range(2 * WRITE_EVENTS + 1):
        log.put(TOPIC, "message", "1")
    stream = response(TOPIC, after={TOPIC: OLDEST})._events()
    counts = [(await anext(stream)).count(b"data") for _ in range(4)]
    assert counts == [0, WRITE_EVENTS, WRITE_EVENTS, 1]
    await stream.aclose()


async def test_what_a_reader_that_loses_its_right_has_not_taken_is_dropped(world):
    _, log = world
    for _ in range(2 * WRITE_EVENTS):
        log.put(TOPIC, "message", "1")
    streaming = response(TOPIC, after={TOPIC: OLDEST})
    stream = aiter(streaming)
    await anext(stream)
    await anext(stream)
    await streaming.recheck(None)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_the_lane_takes_over_after_the_opening(world):
    lane = FakeLane(takes=False)
    stream = aiter(response(TOPIC, lane=lane))
    opening = await anext(stream)
    assert lane.armed is opening
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    lane.takes = True
    # The first event of a topic comes by the log, the others past it.
    await publish_now(TOPIC, 1)
    got = await waiting
    while b"data" not in got:
        got = await anext(stream)
    assert got == b"id: epoch001-1\ndata: 1\n\n"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await publish_now(TOPIC, 2)
    assert lane.written == [b"id: epoch001-2\ndata: 2\n\n"]
    lane.takes = False
    await publish_now(TOPIC, 3)
    got = await waiting
    while got == KEEPALIVE:
        got = await anext(stream)
    assert got == b"id: epoch001-3\ndata: 3\n\n"
    await stream.aclose()


async def test_a_middleware_that_wraps_the_body_keeps_the_lane_out(world):
    lane = FakeLane()
    wrapped = response(TOPIC, lane=lane)
    inner = wrapped.streaming_content

    async def shout():
        async for part in inner:
            yield part.upper()

    wrapped.streaming_content = shout()
    stream = aiter(wrapped)
    await anext(stream)
    assert lane.armed is None
    await publish_now(TOPIC, "x")
    got = await anext(stream)
    while got == KEEPALIVE.upper():
        got = await anext(stream)
    assert got == b'ID: EPOCH001-1\nDATA: "X"\n\n'
    assert lane.written == []
    await stream.aclose()


@pytest.mark.parametrize("identity", [None, Identity(AnonymousUser(), "anonymous")])
async def test_a_stream_ends_when_its_reader_loses_the_right(world, identity, settings):
    streaming = response(TOPIC)
    stream = aiter(streaming)
    await anext(stream)
    ending = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    if identity is not None:
        streaming._topics = ["room.private"]
    await streaming.recheck(identity)
    with pytest.raises(StopAsyncIteration):
        await ending


@pytest.mark.parametrize("identity", [None, Identity(AnonymousUser(), "anonymous")])
async def test_a_reader_that_loses_its_right_while_it_is_attached_gets_nothing(
    world, identity, settings
):
    _, log = world
    log.noise = Noise(1, delay=1.0, longest=0.1)
    streaming = response("public.a", "public.b")
    opening = asyncio.ensure_future(anext(aiter(streaming)))
    await asyncio.sleep(0.001)
    settings.REALTIME = {**settings.REALTIME, "PERMISSION": nobody}
    await streaming.recheck(identity)
    with pytest.raises(StopAsyncIteration):
        await opening


async def test_a_log_that_fails_ends_the_stream_with_its_error(world, caplog):
    caplog.set_level("CRITICAL", "realtime")
    _, log = world
    log.failing = True
    ended = CLOSED.value("sse", "ended")
    with pytest.raises(LogFailed):
        await anext(aiter(response(TOPIC)))
    assert CLOSED.value("sse", "ended") == ended + 1


@pytest.mark.parametrize("how", ["closed", "cancelled"])
@pytest.mark.parametrize(("draining", "code"), [(False, "gone"), (True, "ended")])
async def test_a_stream_that_is_cut_has_gone_or_was_ended_by_a_server_that_stops(
    world, how, draining, code
):
    before = CLOSED.value("sse", code)
    streaming = response(TOPIC)
    streaming._scope["extensions"]["realtime.server"] = {"draining": draining}
    stream = streaming._events()
    await anext(stream)
    if how == "cancelled":
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
    await stream.aclose()
    assert CLOSED.value("sse", code) == before + 1


async def test_one_that_was_never_begun_holds_nothing(world):
    response(TOPIC).close()
    assert running_hubs() == []


# -- how an event looks


@pytest.mark.parametrize(
    ("event", "stream"),
    [
        (Event("t", "message", "1", "abc", 7), b"id: abc-7\ndata: 1\n\n"),
        (Event("t", "joined", "{}", "abc", 7), b"event: joined\nid: abc-7\ndata: {}\n\n"),
        (Event("t", "message", '""'), b'data: ""\n\n'),
        (Event("t", "typing", "null"), b"event: typing\ndata: null\n\n"),
    ],
)
def test_encode_event(event, stream):
    assert encode_event(event) == stream


@pytest.mark.parametrize(
    ("event", "stream_id", "stream"),
    [
        (
            Event("room.a", "message", '"x"', "abc", 7),
            "room.a=abc-7,b=0",
            b'id: room.a=abc-7,b=0\ndata: {"topic":"room.a","data":"x"}\n\n',
        ),
        (
            Event("t", "typing", "[1]"),
            None,
            b'event: typing\ndata: {"topic":"t","data":[1]}\n\n',
        ),
    ],
)
def test_encode_multiplexed_event(event, stream_id, stream):
    assert encode_multiplexed_event(event, stream_id) == stream


def test_encode_reset():
    stream = Stream(encode_reset("room.a", Position("abc", 9), "room.a=abc-9,b=x1y-2"))
    [event] = stream.events
    assert (event.type, event.id) == ("reset", "room.a=abc-9,b=x1y-2")
    assert json.loads(event.data) == {"topic": "room.a", "id": "abc-9"}


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 2**63 - 1))
def test_events_of_two_topics_on_one_stream(text, offset):
    event = Event("room.a", "said", encode_data({"text": text}, 10**6), "abcdefgh", offset)
    stream = encode_event(event) + encode_multiplexed_event(event, f"room.a={event.id}")
    alone, multiplexed = Stream(stream).events
    assert alone == ("said", event.data, f"abcdefgh-{offset}")
    assert multiplexed[::2] == ("said", f"room.a=abcdefgh-{offset}")
    assert json.loads(multiplexed.data) == {"topic": "room.a", "data": {"text": text}}
    assert httpx_events(stream) == [alone, multiplexed]
