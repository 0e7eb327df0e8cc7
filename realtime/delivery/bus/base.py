"""What a bus has to do: carry messages from one process to the others.

It may lose, repeat, reorder or delay them: the log makes up for that.
"""

import logging
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final, NamedTuple, TypeAlias

from ...events.event import Event

PEERS_TOPIC: Final = "realtime.hubs"  # on which the processes that listen announce themselves

_HOST: Final = secrets.token_hex(8)


class Heartbeat(NamedTuple):
    """What a process sends to its peers: that it listens."""

    process: str
    interval: float  # seconds until it sends the next one
    is_asking: bool = False  # which others listen
    answers: Sequence[str] = ()  # the processes that have asked, or were not known


Message: TypeAlias = Sequence[Event] | Heartbeat
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
        """Leave all topics and cease to listen; a bus that is down is not waited for."""

    def note_failure(self, what: str, error: Exception) -> None:
        """Take note of a failed call; the log says so once, not for each event."""
        was_down, self.failure = self.is_down, error
        if not was_down:
            self.logger.warning(
                "The %s %s (%s: %s); other processes find events in the log meanwhile.",
                self.name,
                what,
                type(error).__name__,
                error,
            )

    def note_success(self) -> None:
        """Take note that a call has succeeded; after failures, the log says so."""
        if self.is_down:
            self.failure = None
            self.logger.warning("The %s works again.", self.name)


def this_process() -> str:
    """Return the name by which this process is known on the bus.

    With the process id, since servers that fork after the import share everything else.
    """
    return f"{_HOST}.{os.getpid()}"
