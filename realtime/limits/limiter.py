"""The buckets and the open connections of an event loop: of users, tokens, addresses and topics."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, monotonic_ns
from typing import Final, TypeAlias

from ..conf import settings
from ..conf.rate import UNLIMITED, Rate
from .shared_bucket import SharedBucket

Key: TypeAlias = tuple[str, str]  # what is counted, a setting's name; and of whom

MAX_BUCKETS: Final = 10_000  # beyond it, the oldest begin anew
FEW_BUCKETS: Final = 1_000  # up to which none is checked
SWEPT: Final = 2  # checked for each one that is made: two, so that the checks catch up
HEARD_SECONDS: Final = 5.0  # for which the connections that a process has told of are counted
PEER_SECONDS: Final = 60.0  # after which a process that tells nothing is forgotten
NO_LIMIT: Final = Rate(UNLIMITED, 1, 2**53)  # an event in each nanosecond


class Limiter:
    """The buckets and the open connections, by key."""

    def __init__(self) -> None:
        self.buckets: dict[Key, SharedBucket] = {}
        self.processes = 1  # among which the rates are shared
        self.on_hot: Callable[[], None] = _nothing  # called when the others should know
        self._connections: Counter[Key] = Counter()  # that are open here
        self._kept_out: dict[tuple[Key, ...], float] = {}  # until when, by the monotonic clock
        self._peers: dict[str, _Peer] = {}

    # -- rates

    def make_bucket(self, key: Key, rate: Rate | None) -> SharedBucket:
        """Return the bucket of `key`; make it if there is none."""
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= FEW_BUCKETS:
                self._sweep(monotonic_ns())
            bucket = SharedBucket(rate or NO_LIMIT, key[0], self.processes, self.on_hot)
            self.buckets[key] = bucket
        return bucket

    def change_rate(self, key: Key, rate: Rate | None) -> SharedBucket:
        """Return the bucket that has another rate from now on, with as much spent of it."""
        before, now = self.buckets[key], monotonic_ns()
        after = SharedBucket(rate or NO_LIMIT, key[0], on_hot=self.on_hot)
        after.spent = before.spent
        after.spend_elsewhere(now, min(before.missing(now), after.rate.burst))
        after.divide(self.processes, now)
        before.is_kept = False
        self.buckets[key] = after
        return after

    def divide(self, processes: int) -> None:
        """Divide all rates among so many processes from now on, this one included."""
        if processes != self.processes:
            self.processes, now = processes, monotonic_ns()
            for bucket in self.buckets.values():
                bucket.divide(processes, now)

    def _sweep(self, now: int) -> None:
        # A full bucket is as good as none. Those just made, of which nothing is spent yet, are
        # far behind these.
        for key in [key for key, _ in zip(self.buckets, range(SWEPT), strict=False)]:
            bucket = self.buckets.pop(key)
            bucket.is_kept = not bucket.is_full(now) and len(self.buckets) < MAX_BUCKETS
            if bucket.is_kept:
                self.buckets[key] = bucket  # behind the others

    # -- connections

    def connect(self, key: Key) -> None:
        """Count a connection more; `key` begins with the name of what limits them."""
        self._connections[key] += 1
        if self._is_crowded(key):
            self.on_hot()

    def disconnect(self, key: Key) -> None:
        """Count one connection less."""
        self._connections[key] -= 1
        if not self._connections[key]:
            del self._connections[key]

    def connections(self, key: Key) -> int:
        """Return how many are open here and, as far as they have told, in other processes."""
        now = monotonic()
        peers = (peer for peer in self._peers.values() if peer.heard + HEARD_SECONDS > now)
        return self._connections[key] + sum(peer.open.get(key, 0) for peer in peers)

    def crowded(self) -> Iterator[tuple[Key, int]]:
        """Yield each key with over half of this process's share of connections, and the number."""
        return ((key, n) for key, n in self._connections.items() if self._is_crowded(key))

    def keep_out(self, keys: tuple[Key, ...], seconds: float) -> None:
        """Refuse new connections to the client with all these keys, for so many seconds."""
        now = monotonic()
        self._kept_out = {key: until for key, until in self._kept_out.items() if until > now}
        self._kept_out[keys] = now + seconds

    def kept_out(self, keys: tuple[Key, ...]) -> float:
        """Return for how many seconds more the client is refused; 0 if it is not."""
        return max(self._kept_out.get(keys, 0.0) - monotonic(), 0.0) if self._kept_out else 0.0

    def _is_crowded(self, key: Key) -> bool:
        most = getattr(settings, key[0])
        return most is not None and 2 * self._connections[key] * self.processes > most

    # -- other processes

    def hear(
        self,
        process: str,
        number: int,
        spent: Mapping[Key, int],
        open: Mapping[Key, int],
        part: int = 0,
        parts: int = 1,
    ) -> None:
        """Count what another process has spent, by the totals since its start.

        A message that is older than the last one is ignored. The connections that are open there
        are those of all parts of what it tells at once; the parts' numbers follow one another.
        """
        peer = self._peers.setdefault(process, _Peer())
        if number <= peer.number:
            return
        if number - part > peer.number:  # of no part before
            peer.told = {}
        peer.number, peer.heard = number, monotonic()
        peer.told.update(open)
        if part == parts - 1:
            peer.open = peer.told
        if len(self._peers) > self.processes or len(peer.spent) > MAX_BUCKETS:
            self._forget(peer)
        now = monotonic_ns()
        for key, total in spent.items():
            bucket = self.buckets.get(key)
            before = peer.spent.get(key)
            peer.spent[key] = total
            if bucket is None:  # no such client has come to this process
                continue
            if before is None or total < before:
                # Its first total, or it counts anew: at most the burst is recent.
                before = max(total - bucket.rate.burst, 0)
            bucket.spend_elsewhere(now, total - before)

    def _forget(self, peer: "_Peer") -> None:
        """Forget processes that have gone, and of this one what it told long ago."""
        if len(peer.spent) > MAX_BUCKETS:
            peer.spent.clear()
        oldest = monotonic() - PEER_SECONDS
        self._peers = {name: each for name, each in self._peers.items() if each.heard > oldest}


class _Peer:
    """What another process has told, and when."""

    def __init__(self) -> None:
        self.number = 0
        self.heard = 0.0
        self.spent: dict[Key, int] = {}
        self.open: dict[Key, int] = {}
        self.told: dict[Key, int] = {}  # in the parts that have come so far


def _nothing() -> None:
    """Tell nobody."""
