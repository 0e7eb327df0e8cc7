"""One event followed through the files, as docs/architecture.md says it goes."""

import asyncio
import json
import re
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

from realtime import Subscription, publish_now
from realtime.delivery.synced import Sink
from realtime.server.fastlane import SocketLane
from realtime.testing import memory_log
from realtime.websocket.messages import encode_event

from .support.lanes import identity
from .support.servers import ROOT

PAGE: Final = ROOT / "docs" / "architecture.md"
PACKAGE: Final = ROOT / "realtime"
# Passed on every way, and no station of it: settings, the event itself, tasks and batches.
ASIDE: Final = re.compile(
    r"conf/\w+\.py|exceptions\.py|events/(event|position|topic)\.py|(utils|metrics)/\w+\.py|testing\.py"
    r"|eventlog/(__init__|base)\.py|server/(extensions|websocket_frames|frames)\.py|__init__\.py"
    r"|websocket/messages\.py|delivery/(peers|outbox|topic_subscriber|subscription|synced|published)\.py"
    r"|delivery/bus/\w+\.py"
)


def documented() -> list[str]:
    """The files of the page's list, in its order."""
    text = PAGE.read_text()
    block = text[text.index("<!-- the way -->") : text.index("<!-- end -->")]
    return re.findall(r"^\d+\. `([\w/.]+)`", block, re.M)


class Trace:
    """Notes each call into a file of the package, and the file that it comes from."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __enter__(self) -> "Trace":
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and (name := station(frame)):
            caller = frame.f_back
            self.calls.append((station(caller) if caller is not None else "", name))

    @property
    def way(self) -> list[str]:
        """The files in the order in which each was first entered."""
        return list(dict.fromkeys(name for _, name in self.calls))


def station(frame: FrameType) -> str:
    """The frame's file below `realtime/`; empty for one that is not on the way."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE):
        return ""
    name = path.relative_to(PACKAGE).as_posix()
    return "" if ASIDE.fullmatch(name) else name


class Connection:
    """What a lane needs of its transport: a socket that nothing is pending on."""

    pending = False

    def __init__(self, sock: socket.socket) -> None:
        self.send = sock.send

    def keep(self, data: bytes, sent: int) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


async def test_an_event_goes_the_documented_way_and_never_turns_back():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    lane = SocketLane(Connection(ours))
    lane.open(identity)
    with ours, theirs, memory_log():
        subscription = Subscription()
        subscription.sink = Sink(encode_event, lane)
        subscription.on_ready = lambda: None
        async with subscription:
            await publish_now("room.lobby", "before")
            await subscription.add("room.lobby")
            assert [item async for item in subscription.ready()] == []
            with Trace() as trace:
                event = await publish_now("room.lobby", {"text": "hello"})
                await asyncio.sleep(0)
        assert json.loads(theirs.recv(65_536))["id"] == event.id
    assert trace.way == documented()
    order = {name: number for number, name in enumerate(documented())}
    turns = [(a, b) for a, b in trace.calls if a and order[b] < order[a]]
    assert turns == []


def test_the_files_of_the_page_exist():
    files = re.findall(r"`((?:[a-z]+/)+\w+\.(?:py|lua))`", PAGE.read_text())
    assert [name for name in files if not (PACKAGE / name).exists()] == []


def test_each_row_of_the_page_answers_one_question():
    table = PAGE.read_text().split("## Where do I look when")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", table, re.M)[1:]  # below their head
    assert [question for question, _ in rows if question.count("?") != 1] == []
    assert len(rows) == table.count("\n| ") - 1
