"""The fast lane: when it opens, what it takes, and when it is closed."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import pytest

from realtime.delivery.fanout import Fanout
from realtime.delivery.synced import Sink
from realtime.events.event import Event
from realtime.events.position import Position
from realtime.server.fastlane import CORKED_GROUPS, SocketGroup, SocketLane
from realtime.server.http_response import identity

from .support import Client, Worker, frame


def opened(worker: Worker, client: Client, path: str, *headers: str, method: str = "GET") -> str:
    """Ask for the stream; the framing that its application saw."""
    client.request(path, *headers, method=method)
    return str(lane_event(worker))


def lane_event(worker: Worker) -> Any:
    for _ in range(100):
        events = [e for e in worker.status()["events"] if e.startswith("lane")]
        if events:
            return events[-1].removeprefix("lane ")
    raise AssertionError("no lane")


class Broadcast(Protocol):
    def __call__(self, worker: Worker, size: int, times: int = 1) -> int: ...


@pytest.fixture(params=["", "&together=1"], ids=["one by one", "together"])
def broadcast(request: pytest.FixtureRequest) -> Broadcast:
    def call(worker: Worker, size: int, times: int = 1) -> int:
        return int(worker.get(f"/broadcast?size={size}&times={times}{request.param}"))

    return call


def test_chunked_streams(worker: Worker, broadcast: Broadcast) -> None:
    with worker.client() as client:
        assert opened(worker, client, "/lane") == "chunk"
        assert broadcast(worker, 20) == 1
        client.until(b": hi\n\n\r\n")
        assert client.until(b"\n\n\r\n") == b"1c\r\ndata: " + b"d" * 20 + b"\n\n\r\n"
    worker.wait_for("lane after None False")


def test_http_1_0_streams(worker: Worker, broadcast: Broadcast) -> None:
    with worker.client() as client:
        client.send(b"GET /lane HTTP/1.0\r\n\r\n")
        assert lane_event(worker) == "identity"
        assert broadcast(worker, 3) == 1
        client.until(b": hi\n\n")
        assert client.until(b"\n\n") == b"data: ddd\n\n"


@pytest.mark.parametrize("before", [0, 1])  # requests on the same connection
def test_websockets(worker: Worker, broadcast: Broadcast, before: int) -> None:
    with worker.client() as client:
        for _ in range(before):
            client.request("/hello")
            client.response()
        client.upgrade("/lane")
        assert lane_event(worker) == "None frame_text"
        assert broadcast(worker, 200) == 1
        assert client.frame() == (0x81, b"data: " + b"d" * 200 + b"\n\n")
        client.send(frame(8, b"\x03\xe8"))
        assert client.closed() == 1000
    worker.wait_for("lane after None False")


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/lane?arm=other", "GET"),
        ("/lane?encoding=gzip", "GET"),
        ("/lane?length=1000", "GET"),
    ],
)
def test_it_stays_closed_when_something_rewrites_the_body(
    worker: Worker, broadcast: Broadcast, path: str, method: str
) -> None:
    with worker.client() as client:
        assert opened(worker, client, path, method=method) == "None"
        assert broadcast(worker, 10) == 0


def test_a_slow_subscriber_costs_one_partial_payload_and_comes_back(
    worker: Worker, broadcast: Broadcast
) -> None:
    before = worker.rss()
    with worker.client(receive_buffer=8_192) as client:
        assert opened(worker, client, "/lane") == "chunk"
        taken = broadcast(worker, 60_000, 400)
        assert 0 < taken < 400
        assert broadcast(worker, 10) == 0, "something is pending"
        assert worker.rss() - before < 8_000_000
        client.until(b": hi\n\n\r\n")
        expected = b"eaa0\r\ndata: ".replace(b"eaa0", b"%x" % 60_008) + b"d" * 60_000 + b"\n\n\r\n"
        for _ in range(taken):
            assert client.exactly(len(expected)) == expected
        assert broadcast(worker, 10) == 1
        assert client.until(b"\n\n\r\n") == b"12\r\ndata: dddddddddd\n\n\r\n"


def test_a_dead_subscriber_is_a_false(worker: Worker, broadcast: Broadcast) -> None:
    clients = [worker.client() for _ in range(3)]
    for client in clients:
        client.upgrade("/lane")
    worker.wait_for("lane None frame_text")
    clients[0].reset()
    assert broadcast(worker, 10) in (2, 3)
    worker.wait_for("lane after None False")
    assert broadcast(worker, 200) == 2
    for client in clients[1:]:
        client.close()


def test_a_connection_s_next_stream_has_a_lane_of_its_own(worker: Worker) -> None:
    with worker.client() as client:
        client.request("/scope")
        extensions = json.loads(client.response().body)["extensions"]
        assert "realtime.lane" in extensions
        assert opened(worker, client, "/lane") == "chunk"


class Peer:
    """A lane over a real pair of sockets, and what its transport was told."""

    def __init__(self, group: SocketGroup) -> None:
        self.ours, self.theirs = socket.socketpair()
        for end in (self.ours, self.theirs):
            end.setblocking(False)
        self.kept: list[tuple[bytes, int]] = []
        self.aborted = 0
        self.send: Any = self.ours.send
        self.pending = False
        self.lane = SocketLane(self)
        self.lane.open(identity)
        group.add(self.lane)

    def keep(self, data: bytes, sent: int) -> None:
        self.kept.append((data, sent))
        self.pending = True
        self.lane.pause()

    def abort(self) -> None:
        self.aborted += 1
        self.lane.shut()

    def fill(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.ours.send(b"x" * 65_536)

    def read(self) -> bytes:
        try:
            return self.theirs.recv(1_000)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def group() -> SocketGroup:
    return SocketGroup()


@pytest.fixture
def peers(group: SocketGroup) -> Iterator[list[Peer]]:
    made = [Peer(group) for _ in range(6)]
    yield made
    for peer in made:
        peer.close()


def test_a_group_writes_to_the_indexes_it_is_told(group: SocketGroup, peers: list[Peer]) -> None:
    assert group.write(b"a", 0, 6) == []
    assert group.write(b"b", 2, 4) == []
    assert [peer.read() for peer in peers] == [b"a", b"a", b"ab", b"ab", b"a", b"a"]


def test_lanes_that_are_not_ready_delay_no_other(group: SocketGroup, peers: list[Peer]) -> None:
    peers[0].fill()
    peers[2].fill()
    peers[3].lane.pause()
    peers[4].theirs.close()
    group.remove(1)
    assert group.write(b"a", 0, 6) == [0, 2, 3, 4]
    assert peers[5].read() == b"a"
    assert (peers[1].read(), peers[3].read()) == (b"", b"")
    assert [peer.aborted for peer in peers] == [0, 0, 0, 0, 1, 0]
    assert group.write(b"b", 0, 6) == [0, 2, 3, 4]  # again, and nobody is aborted twice
    assert peers[4].aborted == 1


def test_one_that_fails_hurts_no_other(
    group: SocketGroup, peers: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise ZeroDivisionError("on purpose")

    peers[1].theirs.close()
    monkeypatch.setattr(peers[1], "abort", fail)
    peers[2].send = fail
    peers[3].send = lambda data: 1  # a part, and what is left can't be kept
    for peer in peers[2:4]:
        peer.lane.resume()
    monkeypatch.setattr(peers[3], "keep", fail)
    assert group.write(b"abc", 0, 6) == [1, 2, 3]
    assert [peer.read() for peer in peers[4:]] == [b"abc", b"abc"]
    assert [peer.aborted for peer in peers] == [0, 0, 1, 1, 0, 0]


class Reader:
    """A subscriber that syncs on a peer's lane, and is unsynced once."""

    def __init__(self, peer: Peer, crowd: Fanout) -> None:
        self.position: Position | None = None
        crowd.add(self)
        assert crowd.sync(self, Sink(encode, peer.lane), Position("epoch001", 0))

    def notify(self, events: Sequence[Event]) -> None:
        """Stay where it is."""

    def note_sent(self, events: int, size: int) -> None:
        pass

    def unsynced(self, position: Position, events: Sequence[Event]) -> None:
        assert self.position is None
        self.position = position


def encode(event: Event) -> bytes:
    return event.data.encode()


@pytest.mark.usefixtures("one_slice")
async def test_a_fan_out_over_real_sockets_is_compacted(
    group: SocketGroup, peers: list[Peer]
) -> None:
    for index in range(len(peers)):
        group.remove(index)
    crowd = Fanout("a")
    crowd.restart(Position("epoch001", 0))
    readers = [Reader(peer, crowd) for peer in peers]
    crowd.send([Event("a", "message", "1", "epoch001", 1)])
    assert [peer.read() for peer in peers] == [b"1"] * 6
    for reader in (readers[0], readers[1], readers[3], readers[2]):  # more than half of them
        crowd.remove(reader)
    peers[4].fill()
    for offset in (2, 3):
        crowd.send([Event("a", "message", str(offset), "epoch001", offset)])
    assert [peer.read() for peer in peers if peer is not peers[4]] == [b"", b"", b"", b"", b"23"]
    assert [list(peer.lane.groups.values()) for peer in peers] == [[], [], [], [], [], [1]]
    assert readers[4].position == Position("epoch001", 1)
    assert crowd.position_of(readers[5]) == Position("epoch001", 3)
    crowd.close()


def test_compacting_keeps_the_order_and_which_lanes_are_ready(
    group: SocketGroup, peers: list[Peer]
) -> None:
    for index in (0, 3):
        group.remove(index)
    peers[2].lane.pause()
    assert group.compact() == [1, 2, 4, 5]
    assert group.write(b"a", 0, 4) == [1]
    peers[2].lane.resume()
    peers[5].lane.pause()
    assert group.write(b"b", 0, 4) == [3]
    assert [peer.read() for peer in peers] == [b"", b"ab", b"b", b"", b"ab", b"a"]
    assert group.add(peers[0].lane) == 4


def test_one_lane_takes_all_or_nothing(group: SocketGroup, peers: list[Peer]) -> None:
    lane = peers[0].lane
    assert lane.try_write(b"a")
    lane.pause()
    assert not lane.try_write(b"b")
    lane.resume()
    assert lane.try_write(b"c")
    assert peers[0].read() == b"ac"
    peers[0].fill()
    assert not lane.try_write(b"d")
    assert peers[0].kept == []
    peers[1].theirs.close()
    assert not peers[1].lane.try_write(b"e")
    assert peers[1].aborted == 1
    large = b"z" * 10_000_000
    assert peers[2].lane.try_write(large)
    ((data, sent),) = peers[2].kept
    assert data is large
    assert 0 < sent < len(large)


def test_a_lane_does_not_open_while_something_is_pending(peers: list[Peer]) -> None:
    peers[0].keep(b"a", 0)
    lane = SocketLane(peers[0])
    lane.open(identity)
    assert not lane.try_write(b"b")
    peers[0].pending = False
    lane.resume()
    assert lane.try_write(b"c")
    assert peers[0].read() == b"c"


def test_a_part_that_was_taken_counts_and_the_rest_is_kept(
    group: SocketGroup, peers: list[Peer]
) -> None:
    large = b"z" * 10_000_000
    assert group.write(large, 1, 3) == []
    ((data, sent),) = peers[1].kept
    assert data is large
    assert 0 < sent < len(large)
    assert group.write(b"a", 0, 6) == [1, 2]  # something is pending


def test_what_a_corked_lane_takes_goes_out_in_one_call(
    group: SocketGroup, peers: list[Peer]
) -> None:
    calls: list[bytes] = []

    def send(data: bytes) -> int:
        calls.append(data)
        return peers[1].ours.send(data)

    peers[1].send = send
    peers[1].lane.cork()
    assert group.write(b"a", 0, 3) == []
    assert peers[1].lane.try_write(b"b")
    assert [peer.read() for peer in peers[:3]] == [b"a", b"", b"a"]
    peers[1].lane.uncork()
    assert (peers[1].read(), calls) == (b"ab", [b"ab"])
    assert group.write(b"c", 0, 3) == []
    assert peers[1].read() == b"c"  # it is corked no more
    peers[1].lane.cork()
    peers[1].lane.uncork()
    assert calls == [b"ab", b"c"]  # nothing was written, and nothing is sent


def test_what_a_corked_lane_has_taken_is_queued_where_the_socket_takes_nothing(
    group: SocketGroup, peers: list[Peer]
) -> None:
    peers[0].lane.cork()
    peers[1].lane.cork()
    assert group.write(b"a", 0, 2) == []
    peers[0].fill()
    peers[1].keep(b"first", 0)  # as what the server itself writes meanwhile
    for peer in peers[:2]:
        peer.lane.uncork()
    assert peers[0].kept == [(b"a", 0)]
    assert peers[1].kept == [(b"first", 0), (b"a", 0)]
    assert group.write(b"b", 0, 2) == [0, 1]


def test_a_connection_is_aborted_where_what_its_corked_lane_took_can_not_be_written(
    group: SocketGroup, peers: list[Peer]
) -> None:
    def fail(data: bytes) -> int:
        raise MemoryError

    peers[0].send = fail
    peers[0].lane.cork()
    assert group.write(b"a", 0, 1) == []
    with pytest.raises(MemoryError):
        peers[0].lane.uncork()
    assert peers[0].aborted == 1


def test_a_lane_is_corked_once(peers: list[Peer]) -> None:
    peers[0].lane.cork()
    peers[0].lane.try_write(b"a")
    with pytest.raises(RuntimeError, match="corked already"):
        peers[0].lane.cork()
    peers[0].lane.uncork()
    peers[0].lane.uncork()
    assert peers[0].read() == b"a"


def test_a_lane_in_many_groups_is_not_corked(peers: list[Peer]) -> None:
    for _ in range(CORKED_GROUPS):  # and one that it is in already
        SocketGroup().add(peers[0].lane)
    peers[0].lane.cork()
    peers[0].lane.try_write(b"a")
    assert peers[0].read() == b"a"
    peers[0].lane.uncork()
    assert peers[0].read() == b""


def test_a_lane_that_takes_nothing_takes_nothing_corked(
    group: SocketGroup, peers: list[Peer]
) -> None:
    peers[0].lane.pause()
    peers[0].lane.cork()
    assert group.write(b"a", 0, 1) == [0]
    peers[0].lane.uncork()
    assert not peers[0].lane.try_write(b"b")
    peers[1].lane.cork()
    assert peers[1].lane.try_write(b"c")
    peers[1].lane.shut()
    peers[1].lane.uncork()  # it has ended: as what was queued
    peers[2].lane.cork()
    assert peers[2].lane.try_write(b"d")
    peers[2].theirs.close()
    peers[2].lane.uncork()
    assert (peers[2].aborted, peers[2].kept) == (1, [])
    assert [peer.read() for peer in peers[:2]] == [b"", b""]
    assert [peer.kept for peer in peers[:2]] == [[], []]


def test_a_lane_comes_back_to_its_index(group: SocketGroup, peers: list[Peer]) -> None:
    peers[1].lane.pause()
    assert group.write(b"a", 0, 6) == [1]
    peers[1].lane.resume()
    assert group.write(b"b", 0, 6) == []
    assert peers[1].read() == b"b"
    peers[1].lane.shut()
    peers[1].lane.resume()  # what was pending has gone out: of no use to a closed lane
    assert group.write(b"c", 0, 6) == [1]


def test_a_lane_in_several_groups(group: SocketGroup, peers: list[Peer]) -> None:
    lane, other = peers[0].lane, SocketGroup()
    other.add(lane)
    lane.pause()
    assert (group.write(b"a", 0, 1), other.write(b"b", 0, 1)) == ([0], [0])
    lane.resume()
    assert (group.write(b"c", 0, 1), other.write(b"d", 0, 1)) == ([], [])
    assert peers[0].read() == b"cd"
    group.remove(0)
    assert lane.groups == {other: 0}
    lane.pause()
    assert (group.write(b"e", 0, 1), other.write(b"f", 0, 1)) == ([], [0])
    group.remove(0)  # once more says nothing


def test_a_descriptor_that_another_connection_has_by_now_gets_nothing(
    group: SocketGroup, peers: list[Peer]
) -> None:
    fd = peers[0].ours.fileno()
    again, far = socket.socketpair()
    try:
        peers[0].ours.close()
        os.dup2(again.fileno(), fd)
        assert group.write(b"a", 0, 1) == [0]
        for end in (again, far):
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(1)
    finally:
        os.close(fd)
        again.close()
        far.close()
