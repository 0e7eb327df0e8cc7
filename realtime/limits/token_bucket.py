"""The token bucket, which allows so many uses in a time; the caller tells it the time."""

from ..conf.rate import NANOSECONDS, Rate


class TokenBucket:
    """Tokens that come back at a rate, up to the burst; it begins full.

    In any time `t` no more are taken than `t` brings and the burst. Times are nanoseconds of one
    monotonic clock, and whole: nothing is lost or won by rounding.
    """

    # One number says all: when it will be full again (the generic cell rate algorithm, ITU-T
    # I.371). What has come back meanwhile needs no timer, and a full one no memory.

    __slots__ = ("_full_at", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._full_at = 0

    def wait(self, now: int, cost: int = 1) -> int:
        """Return the nanoseconds until `cost` tokens are there; 0 if they are.

        `cost` is at most the burst: there are never more.
        """
        interval, burst = self.rate.interval, self.rate.burst
        missing = max(self._full_at - now, 0) + (cost - burst) * interval
        return max(missing, 0)

    def spend(self, now: int, cost: int = 1) -> None:
        """Take tokens, even if so many are not left: the missing ones are owed."""
        self._full_at = max(self._full_at, now) + cost * self.rate.interval

    def take(self, now: int, cost: int = 1) -> int:
        """Take the tokens if they are there; return what `wait` does."""
        # On the path of each message: what `wait` and `spend` do, in one.
        _, interval, burst = self.rate
        full_at = (self._full_at if self._full_at > now else now) + cost * interval
        missing = full_at - now - burst * interval
        if missing > 0:
            return missing
        self._full_at = full_at
        return 0

    def missing(self, now: int) -> int:
        """Return how many tokens are taken and have not come back yet, one of them in part."""
        return -(min(now - self._full_at, 0) // self.rate.interval)

    def is_full(self, now: int) -> bool:
        """Return whether nothing is taken: then a new one would be as good."""
        return self._full_at <= now


def seconds(nanoseconds: int) -> float:
    """Return seconds, rounded up to whole milliseconds, so that a client waits long enough."""
    return -(-nanoseconds * 1_000 // NANOSECONDS) / 1_000
