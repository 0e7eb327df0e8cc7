"""What a bus has to do: carry messages from one process to the others.

It may lose, repeat, reorder or delay them: the log makes up for that.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final, NamedTuple, TypeAlias, cast

from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from ...conf import settings
from ...events.event import Event

PEERS_TOPIC: Final = "realtime.hubs"  # that all hubs join, to hear of new ones


# Those that are no channel layer. Imported when used: each needs packages that the others don't.
BUSES: Final = {
    "nats": "realtime.delivery.bus.nats.NatsBus",
    "postgres": "realtime.delivery.bus.postgres.PostgresBus",
    "redis": "realtime.delivery.bus.redis.RedisBus",
}


class Joined(NamedTuple):
    """What a process says to all hubs once: that it listens, and its row is written."""

    process: str
    seconds: float | None = None  # for which it counts without a row: of an earlier release
    is_asking: bool = False  # which others listen: of an earlier release


Message: TypeAlias = Sequence[Event] | Joined
OnMessage: TypeAlias = Callable[[str, Message], None]

MISSED: Final[Sequence[Event]] = ()  # messages on this topic may have been missed: read the log


class Bus(ABC):
    """Carries messages on topics to the other processes, within time limits and without raising.

    A process that listens has one, bound to its event loop; one that only sends makes one for that
    and does not start it.
    """

    name: ClassVar[str]
    is_local: ClassVar[bool] = False
    """Whether it stays within this process."""
    echoes_to_sender: ClassVar[bool]
    """Whether what this process sends comes back, and costs something before it is dropped."""

    def __init__(self, logger: logging.Logger, *, is_authentic: bool = True) -> None:
        self.logger = logger
        self.is_authentic = is_authentic  # nobody else can send on it
        self.failure: Exception | None = None  # of the last call, if it failed
        self.is_running = False  # between `start` and `stop`

    @property
    def is_down(self) -> bool:
        """Return whether the last call failed."""
        return self.failure is not None

    @abstractmethod
    def start(self, on_message: OnMessage) -> None:
        """Listen in the background from now on.

        `on_message` is called in the event loop with a topic and what has come on it from other
        processes, or with `MISSED` once the topic was joined, at first or again.
        """

    @abstractmethod
    def join(self, topics: Iterable[str]) -> None:
        """Subscribe to topics, in the background and until it has succeeded; renew those joined."""

    @abstractmethod
    def leave(self, topics: Iterable[str]) -> None:
        """Unsubscribe from topics, in the background."""

    @abstractmethod
    async def settled(self) -> None:
        """Wait until what was joined and left is so, or has failed for now."""

    @abstractmethod
    async def send(self, topic: str, message: Message) -> bool:
        """Send to all processes that have joined the topic; return whether the bus has taken it.

        Also when not started, from any event loop. Waits for `ANNOUNCE_TIMEOUT_SECONDS` at most.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Leave all topics and cease to listen; a bus that is down is not waited for.

        Called again, it does what a cancellation has kept it from.
        """

    @classmethod
    def check(cls) -> list[CheckMessage]:
        """Return what is wrong with its configuration, for Django's system checks."""
        return []

    def note_failure(self, what: str, error: Exception) -> None:
        """Take note of a failed call; the log says so once, not for each event."""
        was_down, self.failure = self.is_down, error
        if not was_down:
            self.logger.warning(
                "The %s %s (%s); other processes find events in the log meanwhile.",
                self.name,
                what,
                ": ".join(filter(None, (type(error).__name__, str(error)))),
            )

    def note_success(self) -> None:
        """Take note that a call has succeeded; after failures, the log says so."""
        if self.is_down:
            self.failure = None
            self.logger.warning("The %s works again.", self.name)


def bus_class() -> type[Bus] | None:
    """Return the class of the bus that `BUS` names; None where that is a layer, or nothing."""
    path = BUSES.get(settings.BUS)
    return None if path is None else cast(type[Bus], import_string(path))
