"""`realtime.presence.checks`."""

from django.core.checks import run_checks
from django.test import override_settings

TOPICS = {"room.*": {"PRESENCE": True}, "*": {"PRESENCE": False}}


def test_presence_needs_the_rows_of_processes():
    def found(**constants):
        with override_settings(REALTIME=constants):
            return [each for each in run_checks(tags=["realtime"]) if each.id == "realtime.E021"]

    assert found(TOPICS=TOPICS) == []
    assert found(PROCESS_BEAT_SECONDS=None) == []
    assert found(TOPICS={"*": {"PRESENCE": False}}, PROCESS_BEAT_SECONDS=None) == []
    (error,) = found(TOPICS=TOPICS, PROCESS_BEAT_SECONDS=None)
    assert "PROCESS_BEAT_SECONDS" in error.hint
