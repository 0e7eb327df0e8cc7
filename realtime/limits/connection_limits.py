"""What one connection may send: messages, publications and subscriptions."""

from math import ceil
from time import monotonic_ns
from typing import Final

from ..access.identity import Identity
from ..conf.rate import Rate
from ..exceptions import RateLimited
from .rates import rate_for
from .refused import count_refused
from .token_bucket import TokenBucket, seconds

TIMES_OVER: Final = 10  # a client whose refusals alone come at ten times the rate is hammering
PUBLISH_BYTES: Final = 4_096  # a longer message can only be a publication


class ConnectionLimits:
    """The limits of one connection, which it gets with its first message."""

    __slots__ = ("_authenticates", "_messages", "_publishes", "_subscribes")

    def __init__(
        self,
        messages: Rate | None,
        publishes: Rate | None,
        subscribes: Rate | None,
        authenticates: Rate | None = None,
    ) -> None:
        self._messages = messages and _Limit(messages, "RATE_MESSAGES")
        self._publishes = publishes and _Limit(publishes, "RATE_PUBLISHES")
        self._subscribes = subscribes and _Limit(subscribes, "RATE_SUBSCRIBES")
        self._authenticates = authenticates and _Limit(authenticates, "RATE_AUTHENTICATES")

    @classmethod
    async def of(cls, identity: Identity) -> "ConnectionLimits":
        """Return the limits of a connection of `identity`."""
        return cls(
            await rate_for(identity, "RATE_MESSAGES"),
            await rate_for(identity, "RATE_PUBLISHES"),
            await rate_for(identity, "RATE_SUBSCRIBES"),
            await rate_for(identity, "RATE_AUTHENTICATES"),
        )

    async def renewed(self, identity: Identity) -> "ConnectionLimits":
        """Return those that hold once the connection is one of `identity`: what is spent stays."""
        limits = await self.of(identity)
        for name in self.__slots__:
            setattr(limits, name, _continued(getattr(self, name), getattr(limits, name)))
        return limits

    def take_message(self, size: int) -> None:
        """Count a message of `size` bytes before it is parsed; raise `RateLimited`.

        One that can only be a publication, by its length, is refused here if no publication is
        left: it would be parsed in vain.
        """
        if self._messages is not None:
            self._messages.require()
        if size > PUBLISH_BYTES and self._publishes is not None and self._publishes.is_empty:
            self._publishes.require()

    def take_publish(self) -> None:
        """Count a publication; raises `RateLimited`."""
        if self._publishes is not None:
            self._publishes.require()

    def take_subscribe(self) -> None:
        """Count a subscription; raises `RateLimited`."""
        if self._subscribes is not None:
            self._subscribes.require()

    def take_authenticate(self) -> None:
        """Count a credential, which costs a look-up; raises `RateLimited`."""
        if self._authenticates is not None:
            self._authenticates.require()


class _Limit(TokenBucket):
    """A bucket that raises `RateLimited`, and notices a client that goes on all the same."""

    __slots__ = ("_name", "_refused")

    def __init__(self, rate: Rate, name: str) -> None:
        super().__init__(rate)
        self._name = name
        self._refused: TokenBucket | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether it would refuse now."""
        return self.wait(monotonic_ns()) > 0

    def require(self) -> None:
        """Take a token; raises `RateLimited`."""
        now = monotonic_ns()
        if wait := self.take(now):
            if self._refused is None:
                text, interval, burst = self.rate
                over = Rate(text, interval // TIMES_OVER, burst * TIMES_OVER)
                self._refused = TokenBucket(over)
            count_refused(self._name)
            raise RateLimited(
                f"On one connection no more than {self.rate.text} ({self._name}): send it again "
                f"in {ceil(seconds(wait))} s.",
                seconds(wait),
                is_hammering=self._refused.take(now) > 0,
            )


def _continued(before: _Limit | None, limit: _Limit | None) -> _Limit | None:
    """Return `limit` with what is spent of the one before it."""
    if before is None or limit is None:
        return limit
    if before.rate == limit.rate:
        return before
    now = monotonic_ns()
    limit.spend(now, min(before.missing(now), limit.rate.burst))
    return limit


#: For a connection that has sent nothing yet.
NO_LIMITS: Final = ConnectionLimits(None, None, None)
