"""`realtime.delivery.bus.envelope`: what goes to other processes, and what is refused from them."""

from unittest.mock import ANY

import msgpack
import pytest
from django.test import override_settings

from realtime.delivery.bus.base import MISSED, PEERS_TOPIC, Joined
from realtime.delivery.bus.cipher import Cipher, NotAuthentic
from realtime.delivery.bus.envelope import BUS_LAG, decode, encode, from_message, to_message
from realtime.events.event import Event
from realtime.processes import registry
from realtime.processes.registry import this_process

from ...support.hubs import from_elsewhere

LOGGED = Event("room.a", "message", '{"a":"ž"}', "abcd1234", 2**63 - 1)
EPHEMERAL = Event("room.a", "typing", "true")
WITH_META = Event("room.a", "message", "1", "abcd1234", 1, '{"sender":"ž"}')
JOINED = Joined("other.1")
PLENTY = 100_000


# -- as bytes


@pytest.fixture
def elsewhere(monkeypatch):
    """Make the process another one from when it is called."""
    return lambda: monkeypatch.setattr(registry, "_HOST", "elsewhere")


@pytest.mark.parametrize("message", [[LOGGED], [EPHEMERAL, WITH_META], MISSED])
def test_bytes_go_round(message, elsewhere):
    data = encode("room.a", message, PLENTY)
    assert decode(data) is None  # by this process
    elsewhere()
    assert decode(data) == ("room.a", message)
    assert b"room.a" not in data


def test_a_new_process_goes_round():
    assert decode(encode(PEERS_TOPIC, JOINED, PLENTY)) == (PEERS_TOPIC, JOINED)


def test_of_what_is_too_large_the_topic_is_sent(elsewhere):
    whole = encode("room.a", [LOGGED], PLENTY)
    exact, short = (encode("room.a", [LOGGED], len(whole) - less) for less in (0, 1))
    elsewhere()
    assert decode(exact) == ("room.a", [LOGGED])
    assert len(short) < len(whole)
    assert decode(short) == ("room.a", MISSED)


def test_a_key_of_before_is_known_and_another_site_is_not(elsewhere):
    with override_settings(SECRET_KEY="old"):
        data = encode("room.a", [LOGGED], PLENTY)
    elsewhere()
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
        assert decode(data) == ("room.a", [LOGGED])
    with override_settings(SECRET_KEY="new"), pytest.raises(NotAuthentic, match="another site"):
        decode(data)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 200, b"\xff" * 10])
def test_bytes_of_strangers_are_refused(data):
    with pytest.raises(NotAuthentic):
        decode(data)


@pytest.mark.parametrize("content", [b"1", b"[]", b"{", b"\xff", b'{"type": 1}'])
def test_what_the_key_has_encrypted_may_still_be_no_message(content, settings):
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds, all of them dropped
        decode(Cipher([settings.SECRET_KEY]).encrypt(content))


# -- as a dict


@pytest.mark.parametrize(
    "events", [[LOGGED], [EPHEMERAL], [LOGGED, EPHEMERAL, LOGGED], [WITH_META, LOGGED]]
)
def test_events_go_round(events, monkeypatch):
    sent = msgpack.unpackb(
        msgpack.packb(to_message("room.a", events))
    )  # as the Redis layers send it
    monkeypatch.setattr(registry, "_HOST", "elsewhere")
    assert from_message(sent) == ("room.a", events)


def test_what_all_hubs_are_told_survives_encoding():
    sent = msgpack.unpackb(msgpack.packb(to_message(PEERS_TOPIC, JOINED)))
    assert from_message(sent) == (PEERS_TOPIC, JOINED)


def test_a_hello_of_an_earlier_release_is_understood():
    hello = {"type": "realtime.hello", "process": "other", "every": 2.0, "asks": True, "to": []}
    assert from_message(hello) == (PEERS_TOPIC, Joined("other", 10.0, True))


def test_the_form_is_that_of_earlier_releases():
    """Processes of both run side by side while a site is upgraded."""
    assert to_message("room.a", [LOGGED]) == {
        "type": "realtime.event",
        "process": this_process(),
        "topic": "room.a",
        "at": ANY,  # which those do not read
        "events": [
            {"event": "message", "data": '{"a":"ž"}', "epoch": "abcd1234", "offset": 2**63 - 1}
        ],
    }
    assert to_message(PEERS_TOPIC, JOINED) == {
        "type": "realtime.hello",
        "process": "other.1",
        "every": 86_400.0,  # so it is counted for days, though it says it once
        "asks": False,
        "to": [],
        "registered": True,
    }
    assert PEERS_TOPIC == "realtime.hubs"


def test_what_this_process_sent_is_skipped():
    assert from_message(to_message("room.a", [LOGGED])) is None
    assert from_message(to_message(PEERS_TOPIC, Joined(this_process()))) is None


def test_a_forked_process_is_another_one(monkeypatch):
    message = to_message("room.a", [LOGGED])
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert from_message(message) == ("room.a", [LOGGED])


def changed(changes):
    """A message of another process, with changes to itself and to its second event."""
    message = from_elsewhere(LOGGED, LOGGED)
    for name, value in changes.items():
        if name in message:
            message[name] = value
        else:
            message["events"][1][name] = value
    return message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "chat.message"}, "expected type 'realtime.event', got 'chat.message'"),
        ({"type": None}, "got None"),
        ({"topic": None}, "'topic' should be str, got None"),
        ({"topic": ["a"]}, "'topic' should be str"),
        ({"events": None}, "'events' should be list, got None"),
        ({"events": "none"}, "'events' should be list"),
        ({"events": ["none"]}, "expected a dict, got 'none'"),
        ({"event": 1}, "'event' should be str"),
        ({"data": {"a": 1}}, "'data' should be str"),
        ({"data": b"1"}, "'data' should be str"),
        ({"meta": None}, "'meta' should be str"),
        ({"meta": {"sender": 1}}, "'meta' should be str"),
        ({"epoch": 3}, "'epoch' should be str"),
        ({"offset": "7"}, "'offset' should be int, got '7'"),
        ({"offset": None}, "'offset' should be int"),
        ({"offset": 1.5}, "'offset' should be int"),
        ({"data": None, "process": None}, "'data' should be str"),
    ],
    ids=str,
)
def test_what_is_no_announcement_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        from_message(changed(changes))


@pytest.mark.parametrize("name", ["topic", "events", "type"])
def test_an_announcement_without_a_field_is_refused(name):
    message = changed({})
    del message[name]
    with pytest.raises(ValueError, match=name):
        from_message(message)


@pytest.mark.parametrize("name", ["event", "data", "epoch", "offset"])
def test_an_event_without_a_field_is_refused(name):
    message = changed({})
    del message["events"][1][name]
    with pytest.raises(ValueError, match=name):
        from_message(message)


@pytest.mark.parametrize("name", ["process", "every", "asks"])
def test_a_hello_without_a_field_is_refused(name):
    message = to_message(PEERS_TOPIC, JOINED)
    with pytest.raises(ValueError, match=name):
        from_message({**message, name: None})
    del message[name]
    with pytest.raises(ValueError, match=name):
        from_message(message)


def test_how_long_it_was_under_way_is_measured():
    before = BUS_LAG.count()
    message = {**to_message("room.a", [LOGGED]), "process": "another"}
    for at in (message["at"], message["at"] - 1_000, message["at"] + 60_000, 10**400, -(10**400)):
        from_message({**message, "at": at})
    for at in (None, "1", 1.0, float("nan"), float("inf")):  # of an earlier release, or forged
        from_message({**message, "at": at})
    assert BUS_LAG.count() == before + 5


def test_a_message_of_the_same_events_has_always_the_same_size(monkeypatch):
    sizes = set()
    for now in (1_800_000_000_000_000_000, 1_800_000_000_123_456_789):
        monkeypatch.setattr("realtime.delivery.bus.envelope.time.time_ns", lambda now=now: now)
        sizes.add(len(encode("room.a", [LOGGED], 10_000)))
    assert len(sizes) == 1
