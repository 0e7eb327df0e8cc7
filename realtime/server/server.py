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
import gc
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from daphne.server import Server as DaphneServer
from twisted.internet import reactor
from twisted.logger import STDLibLogObserver, globalLogBeginner

from realtime.server import cookies, shutdown
from realtime.server.access_log import logger
from realtime.server.forwarded import ForwardedHeaders, Network
from realtime.server.lifespan import Lifespan, StartupFailed
from realtime.server.limits import Limits
from realtime.server.listen import Listener
from realtime.server.request_threads import RequestThreads, with_borrowed_threads
from realtime.server.root_path import below_root_path, normalize
from realtime.server.state import ServerState
from realtime.server.watchdog import LoopWatchdog


class Server(DaphneServer):
    """Daphne's `Server`; `limits` are what Daphne has no option for.

    `on_startup` is called with the server before it counts as ready, in the thread of its event
    loop, which does not run yet. An application that answers ASGI's lifespan has been told then.
    `trusted_proxies` are those whose headers count; without any, the peer is one.
    """

    def __init__(
        self,
        application: Any,
        *,
        limits: Limits | None = None,
        on_startup: "Sequence[Callable[[Server], None]]" = (),
        trusted_proxies: tuple[Network, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(application, **options)
        limits = limits or Limits()
        self.on_startup = on_startup
        self.lifespan = Lifespan(application)
        self.request_threads = RequestThreads(limits.request_threads)
        forwarded = self._forwarded(trusted_proxies)
        root_path = normalize(self.root_path)
        serve = with_borrowed_threads(application, self.request_threads)
        if root_path or forwarded is not None:  # a proxy may name another
            serve = below_root_path(serve)
        self.state = ServerState(
            loop=event_loop.of_reactor(),
            limits=limits,
            application=serve,
            action_logger=self.action_logger,
            server_header=self.server_name.encode("latin1") if self.server_name else b"",
            root_path=root_path,
            forwarded=forwarded,
            http_timeout=self.http_timeout,
            request_buffer_size=options.get("request_buffer_size", 0),  # not Daphne's 8192
            application_close_timeout=self.application_close_timeout,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            websocket_timeout=self.websocket_timeout,
            websocket_connect_timeout=self.websocket_connect_timeout,
            websocket_max_message_size=self.websocket_max_message_size,
            websocket_max_frame_size=self.websocket_max_frame_size,
        )
        self.listener = Listener(self.state)
        self._drain: asyncio.Task[None] | None = None
        self._is_told_to_stop = False
        self._watchdog: LoopWatchdog | None = None

    def _forwarded(self, proxies: tuple[Network, ...]) -> ForwardedHeaders | None:
        if not self.proxy_forwarded_address_header:
            return None
        names = (
            self.proxy_forwarded_address_header,
            self.proxy_forwarded_port_header,
            self.proxy_forwarded_proto_header,
        )
        address, port, proto = ((name or "").lower().encode() for name in names)
        return ForwardedHeaders(address, port, proto, proxies)

    def run(self) -> None:
        """Listen and serve until stopped. Called once."""
        if self.verbosity <= 1:
            globalLogBeginner.beginLoggingTo(
                [lambda _: None], redirectStandardIO=False, discardBuffer=True
            )
        else:
            globalLogBeginner.beginLoggingTo([STDLibLogObserver(__name__)])
        loop, limits = self.state.loop, self.state.limits
        cookies.install()
        asyncio.set_event_loop(loop)
        if self.verbosity >= 3:
            loop.set_debug(True)
        # Twisted's handlers would stop the loop at once, and uvloop's `add_signal_handler` loses
        # what comes while its loop does not run.
        if self.signal_handlers and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda sent, _: loop.call_soon_threadsafe(self._told, sent))
        try:
            loop.run_until_complete(self.lifespan.start())
        except StartupFailed as error:
            logger.error("The application failed to start: %s", error)
            raise SystemExit(1) from None
        for description in self.endpoints:
            logger.info("Configuring endpoint %s", description)
            listening = self.listener.listen(reactor, str(description))
            listening.addCallback(self.listen_success)
            listening.addErrback(self.listen_error)
            self.listeners.append(listening)
        if self.abort_start:
            loop.run_until_complete(self.lifespan.stop())
            return
        self._call_on_startup()
        self.state.timeouts.start(loop)
        if limits.blocking_seconds:
            self._watchdog = LoopWatchdog(loop, limits.blocking_seconds)
            self._watchdog.start()
        if self.ready_callable:
            self.ready_callable()
        # What has been imported stays; the collector need not check it again.
        gc.collect()
        gc.freeze()
        gc.enable()
        reactor.run(installSignalHandlers=False)

    def _call_on_startup(self) -> None:
        for callback in self.on_startup:
            try:
                callback(self)
            except Exception:
                logger.exception("A callback failed at the start of the server")

    def _told(self, number: int) -> None:
        self.stop(self.state.limits.drain_delay if number == signal.SIGTERM else 0)

    def stop(self, delay: float = 0) -> None:
        """Drain after `delay` seconds, then stop; a second call stops at once."""
        if not reactor.running:
            self.abort_start = True
            self.lifespan.cancel()
            return
        drain = self._drain or self._begin_drain(delay)
        if self._is_told_to_stop:
            # Not at once: a task that is cancelled before its first step never runs its `finally`.
            self.state.loop.call_soon(drain.cancel)
        self._is_told_to_stop = True

    def parent_ended(self) -> None:
        """Drain, unless that has begun already: the process that kept this one running has ended.

        It does not count as a call of `stop`: the supervisor sends a signal and closes its pipe,
        and either may be noticed first.
        """
        if not reactor.running:
            self.stop()
        elif self._drain is None:
            self._begin_drain(0)

    def _begin_drain(self, delay: float) -> asyncio.Task[None]:
        drained = shutdown.drain(self.state, self.listener, self.lifespan, delay)
        self._drain = self.state.loop.create_task(drained)
        self._drain.add_done_callback(lambda _: self._stop_now())
        return self._drain

    def _stop_now(self) -> None:
        self.state.timeouts.stop()
        if self._watchdog is not None:
            self._watchdog.stop()
        if reactor.running:
            reactor.stop()
