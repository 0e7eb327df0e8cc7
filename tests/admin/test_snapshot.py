"""What the live page shows of several processes."""

import asyncio
import json
from unittest.mock import patch

from django.contrib.auth.models import User

from realtime.access import inspection
from realtime.access.identity import Identity
from realtime.access.inspection import ConnectionInfo, answer
from realtime.access.signals import TOPIC
from realtime.admin import snapshot
from realtime.admin.snapshot import ProcessLine, Snapshot, UserLine, complete
from realtime.delivery.subscription import Subscription
from realtime.events.event import Event
from realtime.models import Process

from ..support.hubs import instantly, stage


class Socket:
    def describe(self) -> ConnectionInfo:
        return ConnectionInfo("WebSocket", ["room.a"], "192.0.2.7")


async def answer_as(name: str, user: User) -> None:
    """Be another process, in which the user has a socket."""
    open_now = {Identity(user, "session", "k"): {Socket(): 5.0}}
    async with Subscription() as subscription:
        await subscription.add(TOPIC)
        while True:
            for event in await subscription.read():
                assert isinstance(event, Event)
                with (
                    patch.object(inspection, "this_process", lambda: name),
                    patch.object(inspection, "running_hubs", list),
                ):
                    await answer(open_now, json.loads(event.data)["inspect"])


def test_each_process_that_lives_and_has_connections_is_asked():
    alice = User(pk=7)
    lines = {
        name: ProcessLine(Process(name=name, connections=count), silent)
        for name, count, silent in [
            ("a.1", 3, None),
            ("idle.2", 0, None),
            ("gone.3", 3, 99),
            ("mute.4", None, None),
        ]
    }
    shown = Snapshot(list(lines.values()), [UserLine(alice), UserLine(User(pk=8))])

    async def main() -> None:
        answering = asyncio.create_task(answer_as("a.1", alice))
        await asyncio.sleep(1)
        await complete(shown)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)

    with stage():
        instantly(main())
    assert [line.row.name for line in shown.unheard] == ["mute.4"]
    [theirs] = shown.users[0].connections
    assert (theirs.process, theirs.transport, theirs.topics) == (
        lines["a.1"],
        "WebSocket",
        ["room.a"],
    )
    assert (theirs.since.timestamp(), theirs.more, theirs.address) == (5.0, 0, "192.0.2.7")
    assert shown.users[1].connections == []


async def test_readers_of_a_topic_are_counted_over_the_processes():
    found = {"a": inspection.Found([], []), "b": inspection.Found([], [])}
    said = [
        {"process": "a", "topics": [["room.a", 2], ["room.b", 9]]},
        {"process": "new", "topics": [["room.a", 50]]},
        {"process": "b", "topics": [["room.a", 3]]},
        {"process": "b", "is_last": True},
    ]
    events = [Event("t", "message", json.dumps(each), "", 0, None) for each in said]
    assert snapshot._put(events, found) == ["b"]
    assert (found["a"].topics, found["b"].topics) == (
        [["room.a", 2], ["room.b", 9]],
        [["room.a", 3]],
    )
