"""Where in Redis or Valkey a channel is: on one server, on what Sentinels say, on a cluster's node.

Topics are in partitions, whose tags spread evenly over the slots of a cluster.
"""

import asyncio
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias
from zlib import crc32

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError, MovedError, ResponseError

from ...conf import settings
from ...utils.redis_sentinels import Sentinels, first_answer
from ...utils.redis_slots import partition_tags
from ...utils.redis_url import RedisURL

PREFIX: Final = "realtime:bus:"
PARTITIONS: Final = 128

Address: TypeAlias = tuple[str, int]
Slots: TypeAlias = list[tuple[int, int, Address]]  # first, last, and the primary of both


class Site(NamedTuple):
    """What one URL says, and how to connect by it."""

    url: RedisURL
    pool: ConnectionPool


class Found(NamedTuple):
    """What one of the servers has said."""

    site: Site
    home: Address | None  # of the one server that Sentinels have named
    slots: Slots


class RedisServers:
    """The servers that carry the channels, as one of them knew when it was asked."""

    def __init__(self) -> None:
        self._sites = parse_urls(settings.REDIS_BUS_URL)
        self._known = Found(self._sites[0], None, [])
        self._is_found = False
        self._clients: dict[Address | None, Redis] = {}  # None: where the URL says

    @property
    def is_cluster(self) -> bool:
        """Return whether channels are sharded."""
        return bool(self._known.slots)

    async def find(self) -> None:
        """Take what the first to answer says; raise what the last one raised if none does."""
        nodes = {address for _, _, address in self._known.slots}
        calls = [partial(_ask, site, None) for site in self._sites]
        calls += [partial(_ask, self._known.site, address) for address in nodes]
        found = await first_answer(calls, settings.ANNOUNCE_TIMEOUT_SECONDS / 2)
        has_moved = found.site is not self._known.site
        self._known, self._is_found = found, True
        if has_moved:
            await self.aclose()

    def address_of(self, channel: str) -> Address | None:
        """Return where a channel is; None for where the URL says."""
        if not self.is_cluster:
            return self._known.home
        slot = key_slot(channel.encode())
        for first, last, address in self._known.slots:
            if first <= slot <= last:
                return address
        raise ConnectionError(f"No node of the cluster serves slot {slot}")

    def connection(self, address: Address | None) -> AbstractConnection:
        """Return a new connection, on which reading waits for as long as nothing comes."""
        pool = self._client(address).connection_pool
        options = pool.connection_kwargs | {"socket_timeout": None}
        return pool.connection_class(**options)

    async def publish(self, channel: str, data: bytes) -> None:
        """Publish on the server that carries the channel; find it anew where it has gone."""
        if not self._is_found:
            await self.find()
        try:
            try:
                await self._publish(channel, data)
            except (ConnectionError, MovedError):  # also a connection that has ended meanwhile
                await self.find()
                await self._publish(channel, data)
        except BaseException:
            # Also one that is silent until the caller's time is over: the next asks first.
            self._is_found = False
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, {}
        await asyncio.gather(*(each.aclose() for each in clients.values()), return_exceptions=True)

    async def _publish(self, channel: str, data: bytes) -> None:
        command = "SPUBLISH" if self.is_cluster else "PUBLISH"
        await _execute(self._client(self.address_of(channel)), command, channel, data)

    def _client(self, address: Address | None) -> Redis:
        if address not in self._clients:
            self._clients[address] = _make_client(self._known.site, address)
        return self._clients[address]


async def _ask(site: Site, address: Address | None) -> Found:
    home = None
    if site.url.sentinels and address is None:
        home = address = await _ask_sentinels(site.url)
    client = _make_client(site, address)
    try:
        answer = await _execute(client, "CLUSTER", "SLOTS")
    except ResponseError:  # not a cluster, or one whose ACL has us take it for a server
        return Found(site, home, [])
    finally:
        await client.aclose()
    asked = site.pool.connection_kwargs.get("host", "") if address is None else address[0]
    slots = [
        (first, last, ((primary[0] or b"").decode() or asked, primary[1]))
        for first, last, primary, *_ in answer
    ]
    return Found(site, home, slots)


def _make_client(site: Site, address: Address | None) -> Redis:
    place = {} if address is None else {"host": address[0], "port": address[1]}
    limits = {
        "socket_timeout": settings.ANNOUNCE_TIMEOUT_SECONDS,
        "socket_connect_timeout": settings.ANNOUNCE_TIMEOUT_SECONDS,
        "health_check_interval": 0,  # the bus has its own
        "retry": Retry(NoBackoff(), 0),  # `publish` has its own
        "decode_responses": False,
    }
    options = site.pool.connection_kwargs | place | limits
    return Redis.from_pool(ConnectionPool(site.pool.connection_class, **options))  # closes it


async def _execute(client: Redis, *command: str | bytes) -> Any:
    return await client.execute_command(*command)  # type: ignore[no-untyped-call]


def parse_urls(value: str) -> list[Site]:
    """Return what URLs with commas between say; raise ValueError, without passwords."""
    try:
        urls = [RedisURL.parse(url) for url in _split(value)]
        # RESP2: with RESP3 what is published comes past the answers, to a handler.
        return [Site(url, ConnectionPool.from_url(url.server, protocol=2)) for url in urls]
    except ValueError:  # its text may have a part of a password
        raise ValueError(
            "REDIS_BUS_URL is none of redis://, rediss://, unix://, redis+cluster:// or "
            "redis+sentinel://; in passwords, write / as %2F, @ as %40 and , as %2C"
        ) from None


def _split(value: str) -> list[str]:
    """Return the URLs; a comma may also stand between Sentinels in one of them."""
    urls: list[str] = []
    for part in value.split(","):
        if urls and not part.startswith(("redis", "unix:")):
            urls[-1] += f",{part}"
        else:
            urls.append(part)
    return urls


async def _ask_sentinels(url: RedisURL) -> Address:
    seconds = settings.ANNOUNCE_TIMEOUT_SECONDS
    sentinels = Sentinels(url.sentinels, seconds, url.sentinel_options)
    try:
        return await sentinels.discover_master(url.master)
    finally:
        await sentinels.aclose()


def to_channel(topic: str) -> str:
    """Return the channel of a topic: its hash tag is that of the topic's partition."""
    return to_channel_of(partition_tags(PARTITIONS)[crc32(topic.encode()) % PARTITIONS], topic)


def to_channel_of(tag: str, name: str) -> str:
    """Return the channel of this name in a partition."""
    return f"{PREFIX}{{{tag}}}:{name}"


def to_topic(channel: str) -> str:
    """Return the topic of a channel."""
    return channel.partition("}:")[2]


def tag_of(channel: str) -> str:
    """Return the hash tag of a channel."""
    return channel[channel.index("{") + 1 : channel.index("}")]
