"""Inspection: what a process has open now, which another one asks for over the bus.

The question comes where revocations do, so no process listens to anything more for it, and nothing
is counted before somebody asks.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from ..delivery.announce import announce
from ..delivery.hub import running_hubs
from ..delivery.parts import in_parts
from ..eventlog.base import NewEvent
from ..events.payload import DEFAULT_TYPE, dumps
from ..events.topic import validate_topic
from ..exceptions import InvalidTopic
from ..processes.registry import this_process
from ..utils.asgi import Scope
from .identity import Identity

ANSWERS: Final = "realtime.inspection."  # and the number of the question; for superusers alone
MOST_TOPICS: Final = 50  # told by each process: those with the most readers
MOST_CONNECTIONS: Final = 50  # of a user, told by each process
MOST_NAMES: Final = 10  # topics named of one connection


class ConnectionInfo(NamedTuple):
    """What is told of a live connection."""

    transport: str
    topics: Sequence[str]
    address: str | None = None


class Found(NamedTuple):
    """What a process has open, each as it goes over the bus: in lists and numbers."""

    topics: list[list[Any]]  # name, readers
    connections: list[list[Any]]  # user, transport, since, topics, count of topics, address


Connections: TypeAlias = Mapping[Identity, Mapping[Any, float]]  # each with `describe`, since when


def address_of(scope: Scope) -> str | None:
    """Return the address that a request came from; None where it has none, as by a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client and client[0] else None


def inspect(connections: Connections, users: Sequence[str]) -> Found:
    """Return what this process has open: topics with readers, and connections of some users."""
    readers = (
        (topic, len(feed.fanout))
        for hub in running_hubs()
        for topic, feed in list(hub.feeds.items())
        if not topic.startswith("realtime.")  # the package's own
    )
    most = nlargest(MOST_TOPICS, readers, key=lambda item: item[1])
    theirs = islice(_connections_of(connections, users), MOST_CONNECTIONS)
    return Found([list(item) for item in most], list(theirs))


def _connections_of(connections: Connections, users: Sequence[str]) -> Iterator[list[Any]]:
    for identity, live in connections.items():
        if str(identity.user.pk) in users:
            for connection, since in live.items():
                transport, topics, address = connection.describe()
                some = list(topics[:MOST_NAMES])
                yield [str(identity.user.pk), transport, since, some, len(topics), address]


async def answer(connections: Connections, question: Any) -> None:
    """Answer another process; what is no question is not answered: superusers may publish it."""
    if not isinstance(question, dict) or question.get("process") == this_process():
        return
    users = question.get("users")
    try:
        topic = validate_topic(f"{ANSWERS}{question.get('number')}")
    except InvalidTopic:
        return
    found = inspect(connections, users if isinstance(users, list) else [])
    parts: list[tuple[str, Any]] = [
        (kind, part) for kind, items in found._asdict().items() for part in in_parts(items)
    ]
    for kind, part in [*parts, ("is_last", True)]:
        data = dumps({"process": this_process(), kind: part})
        await announce([NewEvent(topic, DEFAULT_TYPE, data).to_event()])
