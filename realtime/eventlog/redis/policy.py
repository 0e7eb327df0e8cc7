"""What in the settings of the log's Redis would lose events."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from django.core.checks import CheckMessage, Error, Warning
from redis.asyncio.connection import parse_url

from ...conf import settings
from ...exceptions import DatabaseUnavailable, RealtimeConfigurationError
from ...utils.background_loop import background_loop
from ...utils.redis_url import SCHEMES, RedisURL

INFO: Final = "return redis.call('INFO', ARGV[1])"  # as the scripts of the log read it
Ask: TypeAlias = Callable[..., Awaitable[Any]]

EVICTS: Final = "The event log's Redis evicts keys where memory is short (maxmemory-policy {})."
NO_EVICTION: Final = (
    "Set `maxmemory-policy noeviction`: then publishing fails, and nothing is lost."
)


async def require_no_eviction(ask: Ask) -> None:
    """Raise what is wrong where Redis may drop events by itself."""
    if policy := await _find_eviction(ask):
        raise RealtimeConfigurationError(f"{EVICTS.format(policy)} {NO_EVICTION}")


def check_server(ask: Ask) -> list[CheckMessage]:
    """Return what is wrong with the settings, and with the server's own."""
    if not settings.REDIS_LOG_URL:
        message = "The event log is in Redis, and REALTIME has no 'REDIS_LOG_URL'."
        return [Error(message, hint="As 'redis://127.0.0.1:6379/0'.", id="realtime.E014")]
    try:
        parse_url(RedisURL.parse(settings.REDIS_LOG_URL).server)
    except ValueError:  # its text may have a part of a password
        message = f"REALTIME['REDIS_LOG_URL'] is none of {SCHEMES}, or its port is no number."
        hint = "In passwords, write / as %2F and @ as %40."
        return [Error(message, hint=hint, id="realtime.E014")]
    try:
        return background_loop.run(_check, ask)
    except DatabaseUnavailable as error:
        message = f"The event log's Redis can't be asked: {error.__cause__}"
        hint = "See that it runs, and that its user may run scripts and INFO."
        return [Warning(message, hint=hint, id="realtime.W012")]


async def _check(ask: Ask) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if policy := await _find_eviction(ask):
        found.append(Error(EVICTS.format(policy), hint=NO_EVICTION, id="realtime.E015"))
    said = await _info(ask, "server") | await _info(ask, "replication")
    if not said.get("run_id") or not said.get("master_replid"):
        message = "Scripts can't read the run id of the event log's Redis, nor tell a restart."
        hint = "Let the user run INFO in scripts."
        found.append(Error(message, hint=hint, id="realtime.E016"))
    if settings.REDIS_LOG_TRUST_RESTART and not await _is_durable(ask):
        message = "REDIS_LOG_TRUST_RESTART is on, and a restart of Redis may lose the last events."
        hint = "Set `appendonly yes` and `appendfsync always`, or leave the setting off."
        found.append(Error(message, hint=hint, id="realtime.E017"))
    return found


async def _is_durable(ask: Ask) -> bool:
    """Return whether each write is on the disk before it is answered, as far as can be known."""
    if (await _info(ask, "persistence")).get("aof_enabled") != "1":
        return False
    try:
        said = await ask("CONFIG", ["GET", "appendfsync"])
    except DatabaseUnavailable:  # a service that forbids it
        return True
    return "always" in str(said)


async def _find_eviction(ask: Ask) -> str | None:
    """Return the policy by which keys are evicted, if there is a limit at which they would be."""
    said = await _info(ask, "memory")
    policy = said.get("maxmemory_policy", "noeviction")
    return None if policy == "noeviction" or said.get("maxmemory") == "0" else policy


async def _info(ask: Ask, section: str) -> dict[str, str]:
    """Return what a script reads of a section of INFO."""
    lines = (await ask("EVAL", [INFO, "0", section])).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
