"""`realtime.delivery.announcements`: events through the channel layer and back."""

import msgpack
import pytest

from realtime.delivery import announcements
from realtime.delivery.announcements import Hello, from_hello, from_message, to_hello, to_message
from realtime.events.event import Event

LOGGED = Event("room.a", "message", '{"a":"ž"}', "abcd1234", 2**63 - 1)
EPHEMERAL = Event("room.a", "typing", "true")


@pytest.fixture
def _elsewhere(monkeypatch):
    """As if this were another process than the one that announced."""
    monkeypatch.setattr(announcements, "_HOST", "elsewhere")


@pytest.mark.parametrize("events", [[LOGGED], [EPHEMERAL], [LOGGED, EPHEMERAL, LOGGED]])
def test_round_trip(events, monkeypatch):
    sent = msgpack.unpackb(msgpack.packb(to_message(events)))  # as the Redis layers send it
    monkeypatch.setattr(announcements, "_HOST", "elsewhere")
    assert from_message(sent) == events


def test_what_this_process_sent_is_skipped():
    assert from_message(to_message([LOGGED])) == []


def test_a_forked_process_is_another_one(monkeypatch):
    message = to_message([LOGGED])
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert from_message(message) == [LOGGED]


def changed(changes):
    """A message of another process, with changes to itself and to its second event."""
    message = {**to_message([LOGGED, LOGGED]), "process": "other"}
    for name, value in changes.items():
        if name in message:
            message[name] = value
        else:
            message["events"][1][name] = value
    return message


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "chat.message"}, "expected type 'realtime.event', got 'chat.message'"),
        ({"type": None}, "got None"),
        ({"topic": None}, "'topic' should be str, got None"),
        ({"topic": ["a"]}, "'topic' should be str"),
        ({"events": None}, "'events' should be list, got None"),
        ({"events": "none"}, "'events' should be list"),
        ({"events": ["none"]}, "an event should be a dict, got 'none'"),
        ({"event": 1}, "'event' should be str"),
        ({"data": {"a": 1}}, "'data' should be str"),
        ({"data": b"1"}, "'data' should be str"),
        ({"epoch": 3}, "'epoch' should be str"),
        ({"offset": "7"}, "'offset' should be int, got '7'"),
        ({"offset": None}, "'offset' should be int"),
        ({"offset": 1.5}, "'offset' should be int"),
        ({"data": None, "process": None}, "'data' should be str"),
    ],
    ids=str,
)
def test_what_is_no_announcement(changes, says):
    with pytest.raises(ValueError, match=says):
        from_message(changed(changes))


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("name", ["topic", "events", "type"])
def test_a_field_is_missing(name):
    message = changed({})
    del message[name]
    with pytest.raises(ValueError, match=name):
        from_message(message)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("name", ["event", "data", "epoch", "offset"])
def test_a_field_of_an_event_is_missing(name):
    message = changed({})
    del message["events"][1][name]
    with pytest.raises(ValueError, match=name):
        from_message(message)


@pytest.mark.parametrize("options", [{}, {"asks": True}, {"to": ["other.1", "other.2"]}], ids=str)
def test_a_hello_goes_round(options, monkeypatch):
    sent = msgpack.unpackb(msgpack.packb(to_hello(2, **options)))
    assert from_hello(sent) is None  # one's own
    monkeypatch.setattr(announcements, "_HOST", "elsewhere")
    assert from_hello(sent) == Hello(sent["process"], 2.0, **{"to": [], **options})


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("name", ["process", "every", "asks", "to"])
def test_what_is_no_hello(name):
    message = {**to_hello(2.0), "process": "other"}
    with pytest.raises(ValueError, match=name):
        from_hello({**message, name: None})
    del message[name]
    with pytest.raises(ValueError, match=name):
        from_hello(message)
