"""A token bucket that processes share: each has its share, and what the others leave."""

from collections.abc import Callable

from ..conf.rate import Rate
from .token_bucket import TokenBucket


class SharedBucket(TokenBucket):
    """A bucket of all processes together, as far as this one knows.

    It counts what is spent here and what the others tell, so one process may spend all of it while
    the others spend nothing. The share, the rate divided by the number of processes, may be spent
    here whatever the others spend.
    """

    __slots__ = ("_half", "_on_hot", "_share", "asks_at", "is_kept", "name", "spent")

    def __init__(
        self,
        rate: Rate,
        name: str,
        processes: int = 1,
        on_hot: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(rate)
        self._half = rate.burst * rate.interval // 2
        self._on_hot = on_hot
        self.name = name
        self.spent = 0  # here, since it was made
        self.asks_at = 0  # when it has to be asked again which rate holds
        self.is_kept = True  # False: another one has taken its place
        self._share: TokenBucket | None = None
        self.divide(processes, 0)

    def divide(self, processes: int, now: int) -> None:
        """Divide the rate among so many processes, this one included."""
        text, interval, burst = self.rate
        if processes == 1:
            self._share = None
        elif self._share is None or self._share.rate.interval != interval * processes:
            # What is spent here already is spent of the share: else it could be spent again.
            spent = (self._share or self).missing(now)
            self._share = TokenBucket(Rate(text, interval * processes, max(burst // processes, 1)))
            self._share.spend(now, spent)

    def wait(self, now: int, cost: int = 1) -> int:
        """Return the nanoseconds until `cost` may be spent, by what is known now."""
        wait = super().wait(now, cost)
        if wait and self._share is not None and cost <= self._share.rate.burst:
            return min(wait, self._share.wait(now, cost))
        return wait

    def spend(self, now: int, cost: int = 1) -> None:
        """Take tokens, even if so many are not left."""
        self.spent += cost
        super().spend(now, cost)
        if self._share is not None:
            self._share.take(now, cost)
        if self._on_hot is not None and self.is_hot(now):
            self._on_hot()

    def take(self, now: int, cost: int = 1) -> int:
        """Take the tokens if they may be spent; return what `wait` does."""
        if wait := self.wait(now, cost):
            return wait
        self.spend(now, cost)
        return 0

    def spend_elsewhere(self, now: int, cost: int) -> None:
        """Take tokens that another process has spent."""
        super().spend(now, cost)

    def is_hot(self, now: int) -> bool:
        """Return whether more than half of it is spent, so that the others have to know."""
        return self._full_at - now > self._half
