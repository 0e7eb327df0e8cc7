"""Applications with something to do before they serve, and afterwards."""

import asyncio
import os
import signal
import sys
import threading
from typing import Any

SEEN: list[str] = []


def fail(server: Any) -> None:
    raise ZeroDivisionError


def terminate(server: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def note(server: Any) -> None:
    thread = "main" if threading.current_thread() is threading.main_thread() else "other"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        SEEN.append(f"{thread} thread, no loop, {server.verbosity}")


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        assert await receive() == {"type": "lifespan.startup"}
        if os.environ.get("TEST_STARTUP") == "fails":
            await send({"type": "lifespan.startup.failed", "message": "the model is not there"})
            return
        SEEN.append("startup")
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == {"type": "lifespan.shutdown"}
        sys.stdout.write("all has ended\n")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": ", ".join(SEEN).encode()})
