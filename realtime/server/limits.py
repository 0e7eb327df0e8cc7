"""Everything that can grow or wait, with a name, a default and what happens there."""

import argparse
import os
import random
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from realtime.server.option_types import number

ENVIRONMENT_PREFIX = "REALTIME_"
"""Each limit can be set by the environment variable of this prefix and its name in capitals."""


def limit(default: Any, help: str, least: float | None = None) -> Any:
    """Return a dataclass field that is also a command-line option.

    Without `least` it is 1, or 0.0 for a time.
    """
    if least is None:
        least = 1 if isinstance(default, int) else 0.0
    return field(default=default, metadata={"help": help, "least": least})


@dataclass(frozen=True, slots=True)
class Limits:
    """Hold the server's limits. Sizes are in bytes, times in seconds.

    The sizes of a WebSocket frame and message and the ping interval are Daphne's own options.
    """

    max_connections: int = limit(
        20_000,
        "open connections of one worker; more are answered with 503 and Retry-After, "
        "an EventSource with 200 and `retry:`",
    )
    max_header_bytes: int = limit(65_536, "a request's line and headers; longer: 431")
    max_target_bytes: int = limit(8_192, "a request's line, most of it the target; longer: 414")
    max_line_bytes: int = limit(8_192, "one of a request's header lines; longer: 431")
    max_headers: int = limit(128, "a request's header lines; more: 431")
    max_body_size: int = limit(
        33_554_432, "a request's body; more: 413, as soon as that is known, and closed", least=0
    )
    header_timeout: float = limit(
        10.0, "time for a request's headers to arrive; then 408", least=0.1
    )
    keep_alive_timeout: float = limit(60.0, "an idle connection between requests is closed")
    body_timeout: float = limit(
        60.0,
        "time that a body or message may be behind `min_receive_rate`; then closed, with 1008",
        least=0.1,
    )
    min_receive_rate: int = limit(
        500,
        "bytes a second of a body or message that is waited for; 0: one now and then will do",
        least=0,
    )
    stall_timeout: float = limit(
        300.0, "a client that takes none of the bytes waiting for it is dropped", least=0.1
    )
    receive_messages: int = limit(
        32, "WebSocket messages waiting for the application; then the socket is not read"
    )
    receive_bytes: int = limit(
        65_536, "bytes of messages or request body waiting; then the socket is not read"
    )
    close_timeout: float = limit(5.0, "wait for the other side's WebSocket close frame")
    half_close_grace: float = limit(
        0.3, "a response may still finish this long after the client closed its sending side"
    )
    disconnect_timeout: float = limit(
        0.5, "an HTTP application may run this long after its client left; then cancelled"
    )
    drain_delay: float = limit(
        0.0, "after SIGTERM all is served as before for this time, but readyz says 503"
    )
    drain_window: float = limit(
        5.0, "at shutdown, WebSockets and event streams are ended spread over this time"
    )
    drain_grace: float = limit(
        20.0, "at shutdown, time for responses and disconnects to finish; then cancelled"
    )
    request_threads: int = limit(
        16, "threads for the synchronous parts of all requests; more calls wait their turn"
    )
    blocking_seconds: float = limit(
        0.0, "what holds the event loop for longer is logged with its stack; 0: not checked"
    )
    retry_min: int = limit(
        1_000, "shortest reconnection delay an event stream ends with, in ms", least=0
    )
    retry_max: int = limit(5_000, "longest of the same, in ms", least=0)

    def retry_delay(self) -> int:
        """Return a random reconnection delay in milliseconds: not all come back at once."""
        return random.randint(self.retry_min, max(self.retry_min, self.retry_max))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option per limit; the environment overrides the default, the option both."""
    group = parser.add_argument_group("limits", "sizes in bytes, times in seconds")
    for each in fields(Limits):
        assert each.default is not MISSING
        given = os.environ.get(ENVIRONMENT_PREFIX + each.name.upper())
        group.add_argument(
            "--" + each.name.replace("_", "-"),
            type=number(each.metadata["least"]),
            default=given if given else each.default,  # argparse converts a string default
            help=f"{each.metadata['help']} (default: {each.default})",
        )


def from_options(options: argparse.Namespace) -> Limits:
    """Return the limits that `add_arguments` parsed."""
    return Limits(**{each.name: getattr(options, each.name) for each in fields(Limits)})


def from_environment(**given: Any) -> Limits:
    """Return the limits given, and of the others those that the environment sets."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return replace(from_options(parser.parse_args([])), **given)
