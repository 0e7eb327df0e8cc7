"""What the connections of one server share: its loop, its limits, its options, and each other."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from realtime.server.access_log import logger
from realtime.server.disconnect import DisconnectEvent
from realtime.server.forwarded import ForwardedHeaders
from realtime.server.limits import Limits
from realtime.server.request_threads import Application
from realtime.server.timeouts import CHECKS_BEFORE_PING, Timeouts
from realtime.server.transport import Address, Transport


class OpenConnection(Protocol):
    """An open connection, whatever is spoken on it."""

    transport: Transport

    @property
    def is_idle(self) -> bool:
        """Return whether closing it now cuts off nothing."""


class Session(Protocol):
    """A request or a WebSocket, with the application that runs for it."""

    task: "asyncio.Task[None] | None"
    gone: DisconnectEvent

    def drain(self) -> None:
        """End it as soon as that loses nothing: the server shuts down."""


@dataclass(eq=False, slots=True, kw_only=True)
class ServerState:
    """The state of a running server. What is not explained here is an option of Daphne's."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    application: Application
    action_logger: Callable[[str, str, dict[str, Any]], None] | None = None
    server_header: bytes = b""
    root_path: str = ""
    forwarded: ForwardedHeaders | None = None  # where `--proxy-headers` is on
    http_timeout: float | None = None
    request_buffer_size: int = 0  # bytes of a body for one `receive`; 0: what has come
    application_close_timeout: float = 10
    ping_interval: float = 15
    ping_timeout: float = 15
    websocket_timeout: float = 86_400
    websocket_connect_timeout: float = 20
    websocket_max_message_size: int = 1_048_576
    websocket_max_frame_size: int = 1_048_576
    connections: set[OpenConnection] = field(default_factory=set)
    sessions: set[Session] = field(default_factory=set)  # those with a running application
    scope_extension: dict[str, Any] = field(default_factory=lambda: {"draining": False})
    """Shared by all scopes as `extensions["realtime.server"]`: whether it is about to shut down."""
    is_draining: bool = False  # it shuts down: what ends now must not be begun again
    timeouts: Timeouts = field(init=False)
    dead_after: int = field(init=False)  # checks without a sign of life, then a peer is gone

    def __post_init__(self) -> None:
        self.timeouts = Timeouts(self.limits, self.ping_interval)
        unanswered = math.ceil(2 * self.ping_timeout / self.ping_interval)
        self.dead_after = CHECKS_BEFORE_PING + max(1, unanswered)

    def session_ended(self, session: Session, task: "asyncio.Task[None]") -> BaseException | None:
        """Forget a session whose application has ended; return, and log, what it has raised."""
        self.sessions.discard(session)
        try:
            error = task.exception()
        except asyncio.CancelledError as stray:
            # Of something else, where nobody has cancelled the task; no matter once the peer has
            # gone, as where an application awaits what it has cancelled itself.
            error = None if task.cancelling() or session.gone.is_set() else stray
        if error is not None:
            logger.error("Exception inside application: %s", error, exc_info=error)
        return error

    def log_action(self, protocol: str, action: str, peer: Address, **details: Any) -> None:
        """Tell Daphne's action logger, which writes the access log."""
        if self.action_logger:
            details["client"] = f"{peer[0]}:{peer[1]}" if peer else None
            self.action_logger(protocol, action, details)
