"""The event loop under Twisted's reactor: uvloop when it can be had, else asyncio's own.

Import this before anything that imports `twisted.internet.reactor`; it imports `daphne.server`,
which installs the reactor.
"""

import asyncio
import os
import sys
import warnings
from types import ModuleType

NO_UVLOOP = "REALTIME_NO_UVLOOP"
"""Environment variable: anything but empty keeps asyncio's own loop."""


def _uvloop() -> ModuleType | None:
    if os.environ.get(NO_UVLOOP) or "twisted.internet.reactor" in sys.modules:
        return None
    try:
        import uvloop
    except ImportError:
        return None
    module: ModuleType = uvloop
    return module


def install() -> None:
    """Install Twisted's asyncio reactor, once, over the fastest loop there is.

    Daphne makes its loop with `asyncio.new_event_loop()` while it is imported, so the policy is
    swapped for exactly that long: nobody else's loops change.
    """
    uvloop = _uvloop()
    if uvloop is None:
        import daphne.server

        return
    with warnings.catch_warnings():
        # Policies are deprecated from Python 3.14 on; Daphne offers no other way in.
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        try:
            import daphne.server  # noqa: F401
        finally:
            asyncio.set_event_loop_policy(policy)


def of_reactor() -> asyncio.AbstractEventLoop:
    """Return the loop that Twisted's reactor runs on."""
    from twisted.internet import reactor

    loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
    return loop
