"""Daphne's server class, with what Daphne leaves out.

Daphne keeps its command line, its endpoints, its options and what a scope contains. The protocol
classes below it are replaced, not patched: Twisted's HTTP machinery and Autobahn's are most of
what a request, a handshake and a message cost, and both keep without limit what a peer does not
read.
"""

# ruff: noqa: E402 - the reactor has to be installed before Twisted is imported
from realtime.server import loop as event_loop

event_loop.install()

import asyncio
import errno
import gc
import math
import signal
import socket
import sys
import threading
from typing import Any

from daphne.http_protocol import HTTPFactory as DaphneHTTPFactory
from daphne.server import Server as DaphneServer
from twisted.internet import reactor
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.logger import STDLibLogObserver, globalLogBeginner

from realtime.server import lifespan as startup
from realtime.server import shutdown
from realtime.server.access_log import logger
from realtime.server.http_connection import Exchange, HTTPConnection
from realtime.server.http_request import RequestHead
from realtime.server.limits import Limits
from realtime.server.request_threads import Application, RequestThreads, with_borrowed_threads
from realtime.server.timeouts import Watch
from realtime.server.transport import SocketTransport, Transport, TwistedTransport
from realtime.server.watchdog import BlockingWatch
from realtime.server.websocket_connection import PING_AFTER, WebSocket

LISTEN_BACKLOG = 4096
"""Connections the kernel queues before they are accepted. Twisted's 50 makes a storm of
connections wait for SYN retries of 1 s and 3 s."""

ACCEPT_BATCH = 32
"""Connections accepted before the event loop gets a turn, and another worker a chance."""

SPARE_FILES = 128
"""File descriptors kept for the application when connections are counted against the limit."""

RETRY_AFTER = b"5"
"""Seconds, for those who are refused because there are too many connections."""

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HTTPFactory(DaphneHTTPFactory):
    """Builds the protocol for what Twisted accepts: connections with TLS."""

    def buildProtocol(self, addr: Any) -> TwistedTransport:
        transport = TwistedTransport(self.server.loop)
        transport.accepted = self.server.accepted
        return transport

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 alone: HTTP/2 ends at the proxy in front."""
        return [b"http/1.1"]


class Server(DaphneServer):
    """Daphne's `Server`; `limits` are what Daphne has no option for."""

    def __init__(self, application: Any, *, limits: Limits | None = None, **options: Any) -> None:
        super().__init__(application, **options)
        self.limits = limits or Limits()
        self.application: Application = with_borrowed_threads(
            application, RequestThreads(self.limits.request_threads)
        )
        self.loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
        self.state = {"draining": False}
        """Shared by all scopes as `extensions["realtime.server"]`."""
        self.connections: set[HTTPConnection | WebSocket] = set()
        self.sessions: set[Exchange | WebSocket] = set()  # those with a running application
        self.server_header = self.server_name.encode("latin1") if self.server_name else b""
        self.watch = Watch(self.limits, self.ping_interval)
        self.dead_after = PING_AFTER + max(1, math.ceil(2 * self.ping_timeout / self.ping_interval))
        self.max_connections = _within_file_limit(self.limits.max_connections)
        self._ports: list[Any] = []
        self._inherited: set[Any] = set()  # ports on sockets that somebody else has bound
        self._accepting: dict[socket.socket, Any] = {}
        self._draining: asyncio.Task[None] | None = None
        self._blocking: BlockingWatch | None = None

    def run(self) -> None:
        """Listen and serve until stopped. Called once."""
        if self.verbosity <= 1:
            globalLogBeginner.beginLoggingTo(
                [lambda _: None], redirectStandardIO=False, discardBuffer=True
            )
        else:
            globalLogBeginner.beginLoggingTo([STDLibLogObserver(__name__)])
        self.http_factory = HTTPFactory(self)
        for description in self.endpoints:
            logger.info("Configuring endpoint %s", description)
            listener = _endpoint(str(description)).listen(self.http_factory)
            if str(description).startswith("fd:"):
                listener.addCallback(self._inherit)
            listener.addCallback(self.listen_success)
            listener.addErrback(self.listen_error)
            self.listeners.append(listener)
        asyncio.set_event_loop(self.loop)
        if self.verbosity >= 3:
            self.loop.set_debug(True)
        # Twisted's handlers would stop the loop at once.
        if self.signal_handlers and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.add_signal_handler(number, self.stop)
        if not self.abort_start:
            startup.run()
            self.watch.start(self.loop)
            if self.limits.blocking_seconds:
                self._blocking = BlockingWatch(self.loop, self.limits.blocking_seconds)
                self._blocking.start()
            if self.ready_callable:
                self.ready_callable()
            # What has been imported stays; the collector need not look at it again.
            gc.collect()
            gc.freeze()
            reactor.run(installSignalHandlers=False)

    # Listening

    def _inherit(self, port: Any) -> Any:
        self._inherited.add(port)
        return port

    def listen_success(self, port: Any) -> None:
        """Called when an endpoint listens."""
        self._ports.append(port)
        listener = getattr(port, "socket", None)
        if isinstance(listener, socket.socket):
            listener.listen(LISTEN_BACKLOG)  # listen(2) again only changes the backlog
            if port.factory is self.http_factory:
                self._take_over(port, listener)
        super().listen_success(port)

    def _take_over(self, port: Any, listener: socket.socket) -> None:
        """Accept without Twisted, whose transports are replaced. With TLS its own are used."""
        port.stopReading()
        listener.setblocking(False)
        host = None
        if listener.family != socket.AF_UNIX:
            # Accepted sockets inherit these on Linux; that saves two system calls for each.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            address = listener.getsockname()
            if address[0] not in ("0.0.0.0", "::"):
                host = [address[0], address[1]]
        self._accepting[listener] = host
        self.loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        host = self._accepting[listener]
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _FULL:
                    logger.error("Can't accept connections: %s", error.strerror)
                    self.loop.remove_reader(listener.fileno())
                    self.loop.call_later(0.5, self._accept_again, listener)
                    return
                raise
            sock.setblocking(False)
            peer = here = None
            if sock.family != socket.AF_UNIX:
                peer = [address[0], address[1]]
                here = list(host) if host else list(sock.getsockname()[:2])
            transport = SocketTransport(self.loop, self.watch, sock, peer, here)
            self.accepted(transport)
            transport.resume_reading()

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._accepting:
            self.loop.add_reader(listener.fileno(), self._accept, listener)

    def stop_listening(self) -> None:
        """Accept no more; who is connected stays."""
        for listener in self._accepting:
            self.loop.remove_reader(listener.fileno())
        self._accepting.clear()
        for port in self._ports:
            if port in self._inherited:
                # Twisted would remove a Unix socket's file, on which others still listen.
                port.socket.close()
            else:
                port.stopListening()
        self._ports.clear()

    # Connections

    def accepted(self, transport: Transport) -> None:
        """A connection has been opened."""
        connection = HTTPConnection(self, transport)
        if len(self.connections) > self.max_connections:
            connection.refuse(503, "Too many connections.", (b"retry-after", RETRY_AFTER))

    def upgrade(self, transport: Transport, head: RequestHead, rest: bytes) -> None:
        """A request wants to become a WebSocket; rest is what followed its head."""
        WebSocket(self, transport, head).begin(rest)

    def session_ended(self, session: Exchange | WebSocket, task: "asyncio.Task[None]") -> None:
        """The application of a request or WebSocket has returned, raised or been cancelled."""
        self.sessions.discard(session)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                logger.error("Exception inside application: %s", error, exc_info=error)

    # The end

    def stop(self) -> None:
        """Drain, then stop; a second call stops at once."""
        if not reactor.running:
            self.abort_start = True
        elif self._draining is None:
            self._draining = self.loop.create_task(shutdown.drain(self))
            self._draining.add_done_callback(lambda _: self._stop_now())
        else:
            self._draining.cancel()

    def _stop_now(self) -> None:
        self.watch.stop()
        if self._blocking is not None:
            self._blocking.stop()
        if reactor.running:
            reactor.stop()


def _endpoint(description: str) -> Any:
    """Twisted's endpoint. Daphne's own for a file descriptor takes every socket for IPv4."""
    kind, _, rest = description.partition(":")
    if kind != "fd" or not rest.startswith("fileno="):
        return serverFromString(reactor, description)
    fileno = int(rest.removeprefix("fileno=").partition(":")[0])
    with socket.socket(fileno=fileno) as probe:
        family = probe.family
        probe.detach()
    return AdoptedStreamServerEndpoint(reactor, fileno, family)


def _within_file_limit(wanted: int) -> int:
    """At most as many connections as there can be file descriptors; the soft limit is raised."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + SPARE_FILES:
        aim = wanted + SPARE_FILES
        soft = aim if hard == resource.RLIM_INFINITY else min(aim, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - SPARE_FILES))
