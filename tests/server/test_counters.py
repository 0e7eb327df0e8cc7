"""The server counts nothing by itself."""

from realtime.server.counters import ServerCounters


def test_without_anybody_who_wants_them_nothing_is_counted():
    counters = ServerCounters()
    counters.stalled_closed()
    counters.handshake_refused("no_room")
    counters.loop_lag(1.0)
