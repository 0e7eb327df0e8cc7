"""Call scripts in Redis, and know of each call that failed whether it may have been made."""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from ...exceptions import DatabaseUnavailable
from ...utils.redis_sentinels import Sentinels
from ...utils.redis_url import RedisURL
from .pipeline import Pipeline, Value

logger = logging.getLogger("realtime.eventlog")

UNAVAILABLE: Final = (
    "The event log's Redis can't be asked, and clients are told to come back: see that it runs, "
    "that REDIS_LOG_URL names it, and that it may be written to. It said: %s"
)
CLUSTER_CALLS: Final = 8  # of one event loop to one node at once; further calls wait


class CallFailed(Exception):
    """Redis was not reached, or has refused the call: nothing was done."""


class NotAnswered(Exception):
    """The call was sent, and may have been made."""


class Script:
    """A Lua script beside this module; sent whole to a server that does not have it yet."""

    def __init__(self, name: str) -> None:
        self.source = Path(__file__).with_name(f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


class Client:
    """The connection of one event loop to a server, or to what Sentinels say is it.

    Or its connections to a cluster.
    """

    def __init__(self, url: str, answer_seconds: float) -> None:
        self._seconds = answer_seconds
        options: dict[str, Any] = {
            "socket_connect_timeout": answer_seconds,
            # Which calls may be repeated is known here, and not to redis-py.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # of 3, redis-py 8 takes up connections that the server has closed
            "driver_info": None,  # which would be read from the disk
        }
        parts = RedisURL.parse(url)
        self.is_cluster = parts.is_cluster
        self._cluster: RedisCluster | None = None
        self._places = defaultdict[str | None, asyncio.Semaphore](
            lambda: asyncio.Semaphore(CLUSTER_CALLS)  # by node: a silent one holds up no other
        )
        self._pool: ConnectionPool | None = None  # which makes connections, and keeps none
        self._pipeline: Pipeline | None = None
        self._connecting = asyncio.Lock()
        self._sentinels: Sentinels | None = None
        if self.is_cluster:
            asked = parse_url(parts.server).get("host", "localhost")
            self._cluster = RedisCluster.from_url(
                parts.server,
                socket_timeout=answer_seconds,
                # Of nodes that say no address, as behind a proxy: they are where they are asked.
                address_remap=lambda address: (address[0] or asked, address[1]),
                **options,
            )
        elif parts.sentinels:
            self._sentinels = Sentinels(
                parts.sentinels, answer_seconds, parts.sentinel_options, **options
            )
            self._pool = _pool_of(parts, self._sentinels)
        else:
            self._pool = ConnectionPool.from_url(parts.server, socket_timeout=None, **options)
        if self._pool is not None:
            self._pool.connection_kwargs |= {"protocol": 2}  # of which a `Pipeline` knows

    @property
    def is_open(self) -> bool:
        """Return whether a call goes out at once, and arrives after those before it.

        In a cluster each may take a connection of its own.
        """
        return self._pipeline is not None and not self._pipeline.is_closed

    def node_of(self, key: str) -> str | None:
        """Return the node of the cluster that a key is on; None as long as that is not known."""
        if self._cluster is None:
            return None
        nodes = self._cluster.nodes_manager.slots_cache.get(self._cluster.keyslot(key))
        return nodes[0].name if nodes else None

    async def run(self, script: Script, keys: Sequence[str], values: Sequence[Value] = ()) -> Any:
        """Return what the script does; raises `CallFailed` or `NotAnswered`."""
        arguments = (len(keys), *keys, *values)
        try:
            return await self._call("EVALSHA", script.sha, *arguments)
        except NoScriptError:
            return await self.call("EVAL", script.source, *arguments)

    async def call(self, *command: Value) -> Any:
        """Return a command's answer; raises as `run` does."""
        try:
            return await self._call(*command)
        except NoScriptError as error:
            raise CallFailed(error) from error

    async def ask(
        self, what: Script | str, keys: Sequence[str], values: Sequence[Value] = ()
    ) -> Any:
        """Return the answer of a script or command that may be made twice, as it is on failure."""
        for is_last in (False, True):
            try:
                if isinstance(what, Script):
                    return await self.run(what, keys, values)
                return await self.call(what, *keys, *values)
            except (CallFailed, NotAnswered) as error:
                if is_last:
                    raise unavailable(error) from error
        raise AssertionError

    async def aclose(self) -> None:
        """Close the connections."""
        for each in (self._cluster, self._pipeline, self._sentinels):
            if each is not None:
                await each.aclose()

    async def _call(self, *command: Value) -> Any:
        try:
            if self._cluster is not None:
                key = command[3] if str(command[0]).startswith("EVAL") else command[1]
                async with self._places[self.node_of(str(key))]:
                    return await self._cluster.execute_command(*command)
            pipeline = self._pipeline
            if pipeline is None or pipeline.is_closed:
                pipeline = await self._connected()
            return await pipeline.call(command)
        except (NoScriptError, CallFailed):
            raise
        except (ResponseError, BusyLoadingError) as error:
            if isinstance(error, ReadOnlyError) and self._sentinels is not None:
                # A replica by now: Sentinels will say which server it is instead.
                raise NotAnswered(error) from error
            raise CallFailed(error) from error
        except Exception as error:
            # Not errors of Redis alone: to write to a connection that redis-py has closed
            # meanwhile, a RuntimeError in uvloop, is a TypeError in asyncio.
            raise NotAnswered(error) from error

    async def _connected(self) -> Pipeline:
        """Return a connection; raise `CallFailed` where there is none to be had."""
        async with self._connecting:
            if self._pipeline is None or self._pipeline.is_closed:
                assert self._pool is not None
                connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
                try:
                    async with asyncio.timeout(self._seconds):
                        await connection.connect()  # type: ignore[no-untyped-call]
                except BaseException as error:
                    await connection.disconnect(nowait=True)
                    if isinstance(error, RedisError | OSError):
                        raise CallFailed(error) from error
                    raise
                self._pipeline = Pipeline(connection, self._seconds)
            return self._pipeline


def unavailable(error: Exception) -> DatabaseUnavailable:
    """Return what a client is told; log what Redis has said."""
    logger.warning(UNAVAILABLE, str(error).strip())
    return DatabaseUnavailable()


def _pool_of(url: RedisURL, sentinels: Sentinels) -> ConnectionPool:
    """Return a pool whose connections are to the server that the Sentinels name."""
    own: dict[str, Any] = {**parse_url(url.server), "ssl": url.server.startswith("rediss")}
    del own["host"]
    own.pop("connection_class", None)
    pool: ConnectionPool = sentinels.master_for(url.master, **own).connection_pool
    return pool
