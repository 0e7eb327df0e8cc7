"""The end of a worker: what is open is ended in order, and every `finally` runs."""

import asyncio
import random

from realtime.server.lifespan import Lifespan
from realtime.server.listen import Listener
from realtime.server.state import ServerState

SPREAD_PER_SESSION = 0.01
"""Seconds of the window that one WebSocket or stream takes up: a few are ended at once."""

KEEP_ALIVE_NOTICE = 0.25
"""Seconds in which a kept-alive connection still gets an answer, such as readyz' 503."""

CANCEL_GRACE = 5.0
"""Seconds that a cancelled application gets for its `finally`."""


async def drain(server: ServerState, listener: Listener, lifespan: Lifespan) -> None:
    """Stop listening, end what is open, wait for what may finish, cancel what remains."""
    loop, limits = server.loop, server.limits
    start = loop.time()
    server.begin_draining()
    listener.close()
    try:
        await _end_sessions(server, start)
        if any(connection.is_idle for connection in server.connections):
            await asyncio.sleep(KEEP_ALIVE_NOTICE)
        while (server.connections or server.sessions) and loop.time() < start + limits.drain_grace:
            for connection in [each for each in server.connections if each.is_idle]:
                connection.transport.close()
            await asyncio.sleep(0.02)
    finally:
        await _cancel(server)
        await lifespan.stop()
        # An async generator that was suspended outside of a cancelled task is finished by the
        # loop, which stops before it gets to that by itself.
        await loop.shutdown_asyncgens()


async def _end_sessions(server: ServerState, start: float) -> None:
    # In random order, spread over the window: the clients come back, and all of them at once is
    # more than the next worker should see.
    sessions = list(server.sessions)
    random.shuffle(sessions)
    window = min(server.limits.drain_window, len(sessions) * SPREAD_PER_SESSION)
    for number, session in enumerate(sessions):
        ahead = start + window * number / len(sessions) - server.loop.time()
        if ahead > 0.005:
            await asyncio.sleep(ahead)
        session.drain()


async def _cancel(server: ServerState) -> None:
    tasks = [session.task for session in server.sessions if session.task is not None]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_GRACE)
    for connection in list(server.connections):
        connection.transport.abort()
    await asyncio.sleep(0)
