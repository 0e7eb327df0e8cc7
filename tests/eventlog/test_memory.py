"""`realtime.eventlog.memory`: what it has for apps' tests beside a log's contract (`test_base`)."""

from django.test import override_settings

from realtime.eventlog.base import NewEvent
from realtime.eventlog.memory import MemoryLog


def test_events_returns_what_is_kept():
    log = MemoryLog()
    for n in range(3):
        log.append([NewEvent("a", "message", str(n))])
    with override_settings(REALTIME={"RETENTION_EVENTS": 2}):
        assert log.prune() == {"a": 1}
    assert [event.data for event in log.events("a")] == ["1", "2"]
    assert log.events("unknown") == []


def test_on_commit_calls_at_once():
    called = []
    MemoryLog().on_commit(lambda: called.append(1))
    assert called == [1]


def test_what_it_keeps_of_a_topic_is_in_the_topic_s_settings():
    log = MemoryLog()
    for topic in ("a.1", "b"):
        for n in range(4):
            log.append([NewEvent(topic, "message", str(n))])
    topics = {"a.*": {"RETENTION_EVENTS": 1}}
    with override_settings(REALTIME={"RETENTION_EVENTS": None, "TOPICS": topics}):
        assert log.prune() == {"a.1": 3}
    assert [event.data for event in log.events("a.1")] == ["3"]
