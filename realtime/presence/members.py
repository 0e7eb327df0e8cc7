"""Who is on a topic now, for views, tasks and the shell."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from ..events.topic import validate_topic
from ..processes.registry import this_process
from ..utils.threads import DATABASE
from . import rows
from .keeper import get_keeper
from .roster import Attendance, Roster
from .rows import Row
from .seen import key_of


def members(topic: str) -> list[dict[str, Any]]:
    """Return the users who read a topic with `PRESENCE`, as others see them, however many.

    Each is what `PRESENCE_INFO` returns and how many `connections` the user has there: none for
    one who has just left, and may come back. What a process has not written yet is missing. On a
    topic without `PRESENCE` nobody is.
    """
    return _as_members(rows.read_now([validate_topic(topic)]))


async def amembers(topic: str) -> list[dict[str, Any]]:
    """Return the users who read a topic, as `members` does, from async code."""
    return _as_members(await _read(validate_topic(topic)))


def is_online(user: Any) -> bool:
    """Return whether a user reads any topic with `PRESENCE`, or has done so just now."""
    key = key_of(user)
    return bool(key) and rows.is_key_here(key)


async def ais_online(user: Any) -> bool:
    """Return whether a user reads any topic, as `is_online` does, from async code."""
    return await DATABASE.run_twice(is_online, user)


async def attendance_of(topic: str) -> Attendance:
    """Return who is on a topic, in the form that readers get."""
    roster = Roster(topic)
    now = asyncio.get_running_loop().time()
    roster.replace(await _read(topic), now, own="")
    roster.refresh(now, {})
    assert roster.current is not None
    return roster.current


async def _read(topic: str) -> list[Row]:
    """Return the rows of a topic, this process's own as they are and not as they are written."""
    found = await rows.read([topic])
    own = {row.key: row for row in get_keeper().rows_of(topic)}
    left = [
        row._replace(connections=0)
        for row in found
        if row.process == this_process() and row.key not in own
    ]
    return [*(row for row in found if row.process != this_process()), *own.values(), *left]


def _as_members(found: Iterable[Row]) -> list[dict[str, Any]]:
    infos: dict[str, str] = {}
    connections: dict[str, int] = {}
    for row in found:
        if row.info:
            infos[row.key] = row.info
            connections[row.key] = connections.get(row.key, 0) + row.connections
    return [json.loads(info) | {"connections": connections[key]} for key, info in infos.items()]
