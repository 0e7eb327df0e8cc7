"""The listening sockets, and what is accepted on them.

Twisted parses the endpoints and binds their sockets, but for those that another process has bound.
It accepts for those with TLS alone: its transports are replaced on all others, and so is its
backlog.
"""

import contextlib
import errno
import socket
import sys
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from realtime.server.access_log import logger
from realtime.server.http_connection import HTTPConnection
from realtime.server.refused_connection import RefusedConnection
from realtime.server.sockets import BACKLOG
from realtime.server.state import ServerState
from realtime.server.transport import SocketTransport, Transport
from realtime.server.twisted_transport import TwistedTransport

INHERITED = "fd:fileno="
"""How Daphne describes the endpoint of a socket that another process has bound."""

ACCEPT_BATCH = 32
"""Connections accepted before the event loop gets a turn, and another worker a chance."""

SPARE_FILES = 128
"""File descriptors kept for the application when connections are counted against the limit."""

_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@implementer(IProtocolNegotiationFactory)
class TLSFactory(ServerFactory):
    """Make a transport for what Twisted accepts: connections with TLS."""

    noisy = False

    def __init__(self, listener: "Listener", server: ServerState) -> None:
        self._listener = listener
        self._server = server

    def buildProtocol(self, addr: Any) -> TwistedTransport:
        """Return the protocol at the top of Twisted's stack."""
        transport = TwistedTransport(self._server.loop, self._server.timeouts)
        transport.accepted = self._listener.accepted
        return transport

    def acceptableProtocols(self) -> list[bytes]:
        """Return what ALPN may choose: HTTP/1.1 alone, since HTTP/2 ends at the proxy in front."""
        return [b"http/1.1"]


class Listener:
    """Accept connections on the ports of all endpoints."""

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._max_connections = _within_file_limit(server.limits.max_connections)
        self._factory = TLSFactory(self, server)
        self._ports: list[Any] = []
        self._inherited: list[socket.socket] = []  # bound by another process
        self._hosts: dict[socket.socket, Any] = {}  # addresses for scopes, where all have the same

    def listen(self, reactor: Any, description: str) -> Any:
        """Listen on an endpoint; return a Deferred of its port, or of an inherited socket."""
        if description.startswith(INHERITED):
            return maybeDeferred(self._inherit, int(description.removeprefix(INHERITED)))
        listening = serverFromString(reactor, description).listen(self._factory)
        return listening.addCallback(self._add)

    def _inherit(self, fileno: int) -> socket.socket:
        # Twisted would let every user of the machine connect to a Unix socket, which fails for one
        # of another owner's, and in the end remove its file, on which others still listen.
        listener = socket.socket(fileno=fileno)
        self._inherited.append(listener)
        listener.set_inheritable(False)
        listener.listen(BACKLOG)
        self._take_over(listener)
        return listener

    def _add(self, port: Any) -> Any:
        self._ports.append(port)
        listener = getattr(port, "socket", None)
        if isinstance(listener, socket.socket):
            # Twisted's 50 makes a storm of connections wait for SYN retries of 1 s and 3 s.
            listener.listen(BACKLOG)  # listen(2) again only changes the backlog
            if port.factory is self._factory:  # not wrapped for TLS
                port.stopReading()
                self._take_over(listener)
        return port

    def _take_over(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        host = None
        if listener.family != socket.AF_UNIX:
            # Accepted sockets inherit these on Linux; that saves two system calls for each.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            address = listener.getsockname()
            if address[0] not in ("0.0.0.0", "::"):
                host = [address[0], address[1]]
        self._hosts[listener] = host
        self._server.loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept what waits; return whether there may be more."""
        server, host = self._server, self._hosts[listener]
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if error.errno == errno.EINVAL:  # shut down, by a process that shares it
                    server.loop.remove_reader(listener.fileno())
                    return False
                if error.errno in _FULL:
                    logger.error("Can't accept connections: %s", error.strerror)
                    server.loop.remove_reader(listener.fileno())
                    server.loop.call_later(0.5, self._accept_again, listener)
                    return False
                raise
            sock.setblocking(False)
            peer = here = None
            if sock.family != socket.AF_UNIX:
                peer = [address[0], address[1]]
                here = list(host) if host else list(sock.getsockname()[:2])
            transport = SocketTransport(server.loop, server.timeouts, sock, peer, here)
            self.accepted(transport)
            transport.resume_reading()
        return True

    def _accept_again(self, listener: socket.socket) -> None:
        if listener in self._hosts:
            self._server.loop.add_reader(listener.fileno(), self._accept, listener)

    def accepted(self, transport: Transport) -> None:
        """Speak HTTP on a new connection, or refuse it where there are too many."""
        if len(self._server.connections) < self._max_connections:
            HTTPConnection(self._server, transport)
            return
        has_time = self._server.timeouts.has_room
        refused = RefusedConnection(self._server, transport)
        if not has_time:
            refused.give_up()

    def close(self) -> None:
        """Accept no more; what is connected stays, and what waits to be accepted is."""
        for listener in self._hosts:
            self._server.loop.remove_reader(listener.fileno())
            rounds = range(BACKLOG // ACCEPT_BATCH)
            any(not self._accept(listener) for _ in rounds)
        self._hosts.clear()
        for listener in self._inherited:
            listener.close()
        for port in self._ports:
            port.stopListening()
        self._inherited.clear()
        self._ports.clear()

    def shut(self) -> None:
        """Have the kernel refuse connections, in all processes that share the sockets.

        Safe to call from any thread; does nothing after `close`.
        """
        for listener in list(self._hosts):
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _within_file_limit(wanted: int) -> int:
    """Raise the soft limit of file descriptors; return how many connections fit into it."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    aim = 2 * wanted + SPARE_FILES  # each may be the download of a file
    if soft < aim:
        soft = aim if hard == resource.RLIM_INFINITY else min(aim, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - SPARE_FILES))
