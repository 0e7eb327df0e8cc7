"""What goes wrong: each fault acts on a site for a while and ends before it returns."""

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final, TypeAlias

import psycopg

from ..support.databases import ON_POSTGRESQL
from .proxy import Proxy
from .site import Site

Fault: TypeAlias = Callable[[Site, Random], Coroutine[Any, Any, None]]
OnWire: TypeAlias = Callable[[Proxy, Random], Coroutine[Any, Any, None]]


def _seconds(rng: Random) -> float:
    return rng.uniform(0.1, 1.0)


async def cut(proxy: Proxy, rng: Random) -> None:
    for _ in range(rng.randint(1, 3)):
        proxy.cut()
        await asyncio.sleep(rng.uniform(0, 0.2))


async def refuse(proxy: Proxy, rng: Random) -> None:
    proxy.refuse()
    await asyncio.sleep(_seconds(rng))


async def cut_after(proxy: Proxy, rng: Random) -> None:
    proxy.cut_after(rng.randint(0, 2_000))
    await asyncio.sleep(_seconds(rng))


async def freeze(proxy: Proxy, rng: Random) -> None:
    proxy.freeze()
    await asyncio.sleep(_seconds(rng))


async def delay(proxy: Proxy, rng: Random) -> None:
    proxy.delay = rng.uniform(0.01, 0.1)
    await asyncio.sleep(_seconds(rng))


async def swallow(proxy: Proxy, rng: Random) -> None:
    proxy.swallow()
    await asyncio.sleep(_seconds(rng))


async def half_open(proxy: Proxy, rng: Random) -> None:
    proxy.half_open()


async def silence(proxy: Proxy, rng: Random) -> None:
    proxy.silence()


def on_database(act: OnWire) -> Fault:
    async def fault(site: Site, rng: Random) -> None:
        assert site.database is not None
        await act(site.database, rng)
        site.database.heal()

    return fault


def on_bus(act: OnWire) -> Fault:
    async def fault(site: Site, rng: Random) -> None:
        assert site.bus is not None
        await act(site.bus, rng)
        site.bus.heal()

    return fault


def on_log(act: OnWire) -> Fault:
    async def fault(site: Site, rng: Random) -> None:
        assert site.log is not None
        await act(site.log, rng)
        site.log.heal()

    return fault


async def terminate_backends(site: Site, rng: Random) -> None:
    """As a restart of PostgreSQL, or an administrator."""
    await asyncio.to_thread(
        site.execute,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


async def lock(site: Site, rng: Random) -> None:
    """Hold the topics' rows (on SQLite: the whole database), as a long transaction does."""
    seconds = _seconds(rng)

    def hold() -> None:
        # Another fault may terminate this connection too.
        with suppress(psycopg.OperationalError), site.connect() as connection:
            connection.execute("BEGIN" if ON_POSTGRESQL else "BEGIN IMMEDIATE")
            if ON_POSTGRESQL:
                connection.execute("SELECT id FROM realtime_topic ORDER BY name FOR UPDATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    await asyncio.to_thread(hold)


async def set_back(site: Site, rng: Random) -> None:
    """As a failover to a copy of the database that was behind."""
    if site.database is not None:
        site.database.cut()
    count = rng.randint(1, 5)
    for _ in range(20):  # another fault may terminate this connection
        with suppress(psycopg.OperationalError):
            return await asyncio.to_thread(site.set_back, count)
        await asyncio.sleep(0.05)


async def kill_broker(site: Site, rng: Random) -> None:
    await asyncio.to_thread(site.broker.kill)
    await asyncio.sleep(_seconds(rng))
    await asyncio.to_thread(site.broker.start)


async def kill_log(site: Site, rng: Random) -> None:
    assert site.redis is not None
    await asyncio.to_thread(site.redis.kill)
    await asyncio.sleep(_seconds(rng))
    await asyncio.to_thread(site.redis.start)


async def kill_worker(site: Site, rng: Random) -> None:
    if pids := site.server.worker_pids():
        with suppress(ProcessLookupError):
            os.kill(rng.choice(pids), signal.SIGKILL)


async def stop_worker(site: Site, rng: Random) -> None:
    """As swapping does, or a debugger."""
    if pids := site.server.worker_pids():
        with suppress(ProcessLookupError):
            pid = rng.choice(pids)
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(_seconds(rng))
            os.kill(pid, signal.SIGCONT)


async def replace_workers(site: Site, rng: Random) -> None:
    """As a deployment does."""
    site.server.process.send_signal(signal.SIGHUP)


async def change_release(site: Site, rng: Random) -> None:
    """As a deployment of another release does, or the way back."""
    site.change_release()
    await replace_workers(site, rng)


async def jump(site: Site, rng: Random) -> None:
    """Set the workers' clocks wrong by up to an hour and back, as a host does that was asleep."""
    site.set_clock(rng.uniform(-3600, 3600))
    await asyncio.sleep(_seconds(rng))
    site.set_clock(0)


async def take_descriptors(site: Site, rng: Random) -> None:
    """Let the workers open no more files for a while."""
    await _limit(site, rng, resource.RLIMIT_NOFILE, lambda pid: len(os.listdir(f"/proc/{pid}/fd")))


async def take_memory(site: Site, rng: Random) -> None:
    """Give the workers no more memory for a while, as a container at its limit does."""
    await _limit(site, rng, resource.RLIMIT_AS, _address_space)


def _address_space(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


async def fill_disk(site: Site, rng: Random) -> None:
    """Let the workers write to no file for a while: SQLite can't tell this from a full disk."""
    await _limit(site, rng, resource.RLIMIT_FSIZE, lambda pid: 1)


async def _limit(site: Site, rng: Random, kind: int, now: Callable[[int], int]) -> None:
    limits = {}
    for pid in site.server.worker_pids():
        with suppress(OSError):
            limits[pid] = resource.prlimit(pid, kind)
            resource.prlimit(pid, kind, (now(pid), limits[pid][1]))
    await asyncio.sleep(_seconds(rng))
    for pid, limit in limits.items():
        with suppress(OSError):
            resource.prlimit(pid, kind, limit)


_WIRE: Final[tuple[OnWire, ...]] = (
    cut,
    refuse,
    cut_after,
    freeze,
    delay,
    swallow,
)
_FAULTS: Final[dict[str, Fault]] = {
    "bus: killed and started": kill_broker,
    "database: lock": lock,
    "worker: killed": kill_worker,
    "worker: stopped for a while": stop_worker,
    "workers: replaced": replace_workers,
    "workers: clock jumps": jump,
    "workers: no more descriptors": take_descriptors,
    "workers: no more memory": take_memory,
}


def faults_of(bus: str, log: str, has_two_releases: bool = False) -> dict[str, Fault]:
    """Return the faults that a site can have with this bus and this log, by their names."""
    places = {"bus": on_bus, "database": on_database, "log": on_log}
    found = dict(_FAULTS)
    if bus == "postgres":  # the database is its server
        del places["bus"], found["bus: killed and started"]
    if log == "database":
        del places["log"]
        found["database: set back"] = set_back
    if log == "redis":
        found["log: killed and started"] = kill_log
    if has_two_releases:
        found["workers: another release"] = change_release
    if ON_POSTGRESQL:
        found["database: terminate_backends"] = terminate_backends
    else:
        found["database: disk full"] = fill_disk
        del places["database"]
    for place, on in places.items():
        found |= {f"{place}: {act.__name__}": on(act) for act in (*_WIRE, half_open, silence)}
    return found
