"""The loop under the reactor, in fresh interpreters: it can be installed only once."""

import subprocess
import sys

import pytest

from realtime.server.loop import NO_UVLOOP

from .support import ROOT

SCRIPT = """
import asyncio, sys
{before}
before = asyncio.get_event_loop_policy()
from realtime.server.server import Server
from twisted.internet import reactor
assert asyncio.get_event_loop_policy() is before
print(type(reactor._asyncioEventloop).__module__)
"""


def module(before: str = "", **env: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(before=before)],
        cwd=ROOT,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_uvloop_when_it_is_there() -> None:
    pytest.importorskip("uvloop")
    assert module() == "uvloop"


def test_asyncios_own_when_it_is_not_or_not_wanted() -> None:
    assert module("sys.modules['uvloop'] = None") == "asyncio.unix_events"
    assert module(**{NO_UVLOOP: "1"}) == "asyncio.unix_events"


def test_a_reactor_that_is_there_already_stays() -> None:
    assert module("import daphne.server") == "asyncio.unix_events"
