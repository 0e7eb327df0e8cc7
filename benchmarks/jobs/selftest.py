"""The load client against a server that does nothing but send: it must outrun every contestant.

The bare sender is one loop of `send()` calls with one prepared frame, which no server in Python
can beat. `python -m benchmarks.jobs.selftest PORT` is that server.
"""

import os
import re
import select
import socket
import sys
from collections.abc import Iterator
from itertools import repeat

from ..broadcasts import Broadcaster
from ..contestants import ROOT
from ..load import Crowd
from ..machine import Load, ServerProcess, free_port
from ..plan import Measurement, Plan
from ..wire import WebSocketParser, websocket_request

LABEL = "Bare sender"


def run(plan: Plan) -> Iterator[Measurement]:
    """Deliveries per second from the bare sender, to as many sockets as the contestants send to."""
    for size in plan.sizes:
        yield from against(size, plan)


def against(size: int, plan: Plan) -> Iterator[Measurement]:
    """The same for one size."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.jobs.selftest", str(port)]
    process = ServerProcess(command, dict(os.environ), port, plan.server_core, ROOT)
    try:
        process.wait_until_it_answers()
        crowd = Crowd(port, WebSocketParser)
        with crowd:
            crowd.open(repeat(websocket_request(f"127.0.0.1:{port}", "/"), size))
            with Broadcaster(crowd, "/") as broadcaster, Load(process) as load:
                result = broadcaster.run(plan.seconds)
        yield Measurement(
            f"Self-test: bare sender to {size:,}",
            LABEL,
            result.rate,
            "deliveries/s",
            tally=result.tally,
            server_load=load.server,
            client_load=load.client,
        )
    finally:
        process.stop()


def serve(port: int) -> None:
    """Upgrade whoever asks; send every POST's body to all of them."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1_024)
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    peers: dict[int, socket.socket] = {}
    senders = []
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[sock.fileno()] = sock
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            try:
                request = peers[fd].recv(65_536)
            except ConnectionError:
                request = b""
            if not request:
                epoll.unregister(fd)
                peers.pop(fd).close()
            elif request.startswith(b"POST"):
                payload = request.partition(b"\r\n\r\n")[2]
                frame = bytes((0x81, len(payload))) + payload
                for send in senders:
                    send(frame)
                peers[fd].send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            elif re.search(rb"(?i)upgrade: websocket", request):
                peers[fd].send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                senders.append(peers[fd].send)
            else:
                peers[fd].send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
