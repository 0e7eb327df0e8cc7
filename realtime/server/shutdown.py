"""The end of a worker: what is open is ended in order, and every `finally` runs."""

import asyncio
import random
from collections.abc import Iterable

from realtime.server.lifespan import Lifespan
from realtime.server.listen import Listener
from realtime.server.state import ServerState

SPREAD_PER_SESSION = 0.01
"""Seconds of the window that one WebSocket or stream takes up: a few are ended at once."""

KEEP_ALIVE_NOTICE = 0.25
"""Seconds in which a kept-alive connection still gets an answer, such as readyz' 503."""

CANCEL_GRACE = 5.0
"""Seconds that a cancelled task gets for its `finally`."""


async def drain(
    server: ServerState, listener: Listener, lifespan: Lifespan, delay: float = 0
) -> None:
    """Stop listening, end what is open, wait for what may finish, cancel what remains.

    For `delay` seconds before, only readyz says that it will.
    """
    loop, limits = server.loop, server.limits
    server.scope_extension["draining"] = True
    try:
        await asyncio.sleep(delay)
        server.is_draining = True
        listener.close()
        start = loop.time()
        await _end_sessions(server, start)
        if any(connection.is_idle for connection in server.connections):
            await asyncio.sleep(KEEP_ALIVE_NOTICE)
        while (server.connections or server.sessions) and loop.time() < start + limits.drain_grace:
            for connection in [each for each in server.connections if each.is_idle]:
                connection.transport.close()
            await asyncio.sleep(0.02)
    finally:
        await _cancel(session.task for session in server.sessions)
        for connection in list(server.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        await lifespan.stop()
        # As `asyncio.run` ends: first tasks, since a generator that one is iterating can't be
        # closed, then the generators that are suspended outside of them.
        await _cancel(task for task in asyncio.all_tasks() if task is not asyncio.current_task())
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


async def _cancel(tasks: "Iterable[asyncio.Task[None] | None]") -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=CANCEL_GRACE)
