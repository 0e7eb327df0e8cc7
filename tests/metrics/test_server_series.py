"""What the server counts is counted here."""

from realtime.metrics.server_series import HANDSHAKES, INBOX_FULL, LOOP_LAG, RESTARTS, STALLED
from realtime.server.counters import counters


def test_the_server_counts_into_the_series():
    before = [each.value() for each in (STALLED, INBOX_FULL, RESTARTS)]
    reasons = HANDSHAKES.value("no_room"), HANDSHAKES.value("other"), LOOP_LAG.count()
    counters.stalled_closed()
    counters.inbox_full()
    counters.worker_restarted()
    counters.handshake_refused("no_room")
    counters.handshake_refused("of a later release")
    counters.loop_lag(0.002)
    assert [each.value() for each in (STALLED, INBOX_FULL, RESTARTS)] == [n + 1 for n in before]
    after = HANDSHAKES.value("no_room"), HANDSHAKES.value("other"), LOOP_LAG.count()
    assert after == tuple(n + 1 for n in reasons)
