"""The client that a connection or a request counts for, and its limits over all connections."""

from asyncio import TimerHandle, get_running_loop
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from time import monotonic_ns
from typing import Any, Final, Literal, TypeAlias

from ..access.identity import ANONYMOUS, Identity
from ..conf import settings
from ..conf.rate import NANOSECONDS, Rate
from ..exceptions import DataTooLarge, RateLimited, RealtimeError, TooManyRequests
from .exchange import get_limiter, processes
from .limiter import NO_LIMIT, Key, Limiter
from .rates import rate_for
from .refused import count_refused
from .shared_bucket import SharedBucket
from .token_bucket import seconds

Action: TypeAlias = Literal["OPENS", "PUBLISHES", "TOPICS"]
IPV6_PREFIX: Final = 64  # bits, which one subscriber has at least (RFC 6177)
ASKS_AFTER: Final = 60 * NANOSECONDS  # after which it may be another rate
BEGIN_SECONDS: Final = 10.0  # for the body of an event stream to begin
PLACE_SECONDS: Final = 10  # until a client should try again when all its connections are taken


class Client:
    """A user or an access token, and an address, in whose name something is asked for.

    What comes with a token counts for the token, and not for its user: a service may have thousands
    of connections where a person has a few.
    """

    __slots__ = ("_buckets", "_counted_by", "_expiry", "_keys", "_names", "identity")

    def __init__(self, identity: Identity, scope: Mapping[str, Any]) -> None:
        self.identity = identity
        self._names = _names(identity, scope)
        self._keys: dict[Action, list[Key]] = {}
        self._buckets: dict[Action, list[SharedBucket]] = {}
        self._counted_by: Limiter | None = None
        self._expiry: TimerHandle | None = None

    # -- rates

    async def take(self, action: Action, cost: int = 1) -> None:
        """Count `cost` uses of `action`; raise `RateLimited`, or `DataTooLarge` for over the burst.

        A refused use is not counted.
        """
        buckets = self._kept(action)
        if buckets is None:
            buckets = await self._find(action)
        now = monotonic_ns()
        for bucket in buckets:
            if cost > bucket.rate.burst or bucket.wait(now, cost):
                raise refusal(bucket, now, cost)
        for bucket in buckets:
            bucket.spend(now, cost)

    async def check(self, action: Action) -> None:
        """Raise `RateLimited` if not even one use is left; count nothing."""
        now = monotonic_ns()
        for bucket in await self._find(action):
            if bucket.wait(now):
                raise refusal(bucket, now, 1)

    async def owe(self, action: Action, cost: int) -> None:
        """Count `cost` uses that have happened already, even if so many are not left."""
        now = monotonic_ns()
        for bucket in await self._find(action):
            bucket.spend(now, cost)

    def is_over(self, action: Action) -> SharedBucket | None:
        """Return a bucket that is used up, or None; a bucket that is not made yet is full."""
        keys = self._keys_of(action)
        buckets = get_limiter().buckets if keys else {}
        for key in keys:
            bucket = buckets.get(key)
            if bucket is not None and bucket.wait(monotonic_ns()):
                return bucket
        return None

    def _keys_of(self, action: Action) -> list[Key]:
        keys = self._keys.get(action)
        if keys is None:
            names = [(f"RATE_{action}_PER_{kind}", name) for kind, name in self._names]
            keys = self._keys[action] = [key for key in names if _may_limit(key[0])]
        return keys

    def _kept(self, action: Action) -> list[SharedBucket] | None:
        """Return what `_find` returned last, while all of these buckets are still in use."""
        buckets = self._buckets.get(action)
        if buckets:
            now = monotonic_ns()
            for bucket in buckets:
                if not bucket.is_kept or now >= bucket.asks_at:
                    return None
        return buckets

    async def _find(self, action: Action) -> list[SharedBucket]:
        found = [await self._bucket(key) for key in self._keys_of(action)]
        self._buckets[action] = found
        return found

    async def _bucket(self, key: Key) -> SharedBucket:
        now, limiter = monotonic_ns(), get_limiter()
        bucket = limiter.buckets.get(key)
        if bucket is not None:
            if now < bucket.asks_at:
                return bucket
            bucket.asks_at = now + ASKS_AFTER  # one asks, and the others are not kept waiting
        rate = await self._rate(key[0])
        bucket = limiter.make_bucket(key, rate)
        if bucket.rate != (rate or NO_LIMIT):
            bucket = limiter.change_rate(key, rate)
        bucket.asks_at = now + ASKS_AFTER
        return bucket

    async def _rate(self, name: str) -> Rate | None:
        # The hook is not asked about an address, which many users may share.
        is_shared = name.endswith("_PER_ADDRESS")
        return getattr(settings, name) if is_shared else await rate_for(self.identity, name)

    # -- connections

    async def require_place(self) -> None:
        """Raise `TooManyRequests` or `RateLimited` where no further connection may be opened."""
        await self._find("OPENS")  # first: between the count and `connect` nothing may be awaited
        places = self.places()
        if seconds_left := get_limiter().kept_out(tuple(places)):
            raise TooManyRequests(
                "Too much was refused on a connection of yours: come back later.", seconds_left
            )
        _require_room(places)
        await self.take("OPENS")

    def reserve(self) -> None:
        """Count a connection that `connect` begins within `BEGIN_SECONDS`; else it counts no more.

        An answer may be lost on its way through the site's middleware.
        """
        self.connect()
        self._expiry = get_running_loop().call_later(BEGIN_SECONDS, self.disconnect)

    def connect(self) -> None:
        """Count a connection as open until `disconnect`; one that is reserved counts once."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._counted_by is None:
            self._counted_by = limiter = get_limiter()
            limiter.divide(processes())
            for key in self.places():
                limiter.connect(key)

    def replace(self, other: "Client") -> None:
        """Count the connection of `other` from now on; raises `TooManyRequests` where it can't."""
        _require_room(set(self.places()) - set(other.places()))
        other.disconnect()
        self.connect()

    def keep_out(self) -> None:
        """Refuse new connections from its address for `HAMMERING_BACK_SECONDS`."""
        if any(kind != "ADDRESS" for kind, _ in self._names):  # else many may share it
            get_limiter().keep_out(tuple(self.places()), settings.HAMMERING_BACK_SECONDS)

    def disconnect(self) -> None:
        """Stop counting the connection, if it was counted."""
        if self._counted_by is not None:
            for key in self.places():
                self._counted_by.disconnect(key)
            self._counted_by = None

    def places(self) -> list[Key]:
        """Return what a connection counts for."""
        return [(f"MAX_CONNECTIONS_PER_{kind}", name) for kind, name in self._names]


def refusal(bucket: SharedBucket, now: int, cost: int) -> RealtimeError:
    """Return the error for `cost` uses that `bucket` refuses, and count the refusal."""
    count_refused(bucket.name)
    if cost > bucket.rate.burst:
        return DataTooLarge(
            f"{cost} at once are more than {bucket.rate.text} ever lets through ({bucket.name}): "
            "send fewer at a time."
        )
    wait = seconds(bucket.wait(now, cost))
    return RateLimited(
        f"No more than {bucket.rate.text} ({bucket.name}): send it again in {ceil(wait)} s.", wait
    )


def _require_room(places: Iterable[Key]) -> None:
    for key in places:
        most = getattr(settings, key[0])
        if most is not None and get_limiter().connections(key) >= most:
            count_refused("MAX_CONNECTIONS")
            raise TooManyRequests(f"{most} connections are open already ({key[0]}).", PLACE_SECONDS)


def _may_limit(name: str) -> bool:
    has_hook = settings.RATE_FOR is not None and not name.endswith("_PER_ADDRESS")
    return has_hook or getattr(settings, name) is not None


def _names(identity: Identity, scope: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the kinds and names to count by; an anonymous user is counted by address alone."""
    names = []
    if identity.token_key is not None:
        names.append(("TOKEN", identity.token_key))
    elif identity.user.is_authenticated:
        names.append(("USER", str(identity.user.pk)))
    if (peer := scope.get("client")) and peer[0]:
        names.append(("ADDRESS", network_of(peer[0])))
    return names


@lru_cache(maxsize=1_000)
def network_of(host: str) -> str:
    """Return an address in the form that is counted: an IPv6 address as its network of 64 bits."""
    try:
        address = ip_address(host)
    except ValueError:  # what the server calls the client is no address
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, IPV6_PREFIX), strict=False))
        address = address.ipv4_mapped
    return str(address)


#: For what has neither a user nor an address.
NOBODY: Final = Client(ANONYMOUS, {})
