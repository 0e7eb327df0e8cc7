"""`/metrics` on a port of the loopback alone, which asks for no permission and uses no worker."""

import asyncio
import contextlib
import logging
import socket
from typing import Final

from .collect import read
from .exposition import CONTENT_TYPE, render

logger = logging.getLogger("realtime.metrics")

HOST: Final = "127.0.0.1"
# A web page whose name resolves to the loopback (DNS rebinding) must not read it.
NAMES: Final = frozenset({"127.0.0.1", "localhost"})
REQUEST_SECONDS: Final = 5.0  # for the head to come, and for the answer to go
MAX_HEAD_BYTES: Final = 8_192
MAX_CLIENTS: Final = 8  # at once; others are closed


class LoopbackPort:
    """Answers `GET /metrics` on a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        """Bind the port; raise OSError where that can't be. 0 takes a free one."""
        self._sock = socket.create_server((HOST, port))
        self.port: int = self._sock.getsockname()[1]
        self._clients = 0

    async def serve(self) -> None:
        """Answer until cancelled."""
        serving = await asyncio.start_server(self._answer, sock=self._sock, limit=MAX_HEAD_BYTES)
        async with serving:
            await serving.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                async with asyncio.timeout(REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await _response(head))
                    await writer.drain()
        except TimeoutError:
            writer.transport.abort()  # else it waits for one that reads nothing
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except Exception:
            logger.exception("The metrics could not be told")
        finally:
            self._clients -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _response(head: bytes) -> bytes:
    request, *lines = head.decode("latin1").split("\r\n")
    method, _, rest = request.partition(" ")
    target = rest.partition(" ")[0].partition("?")[0]
    hosts = [line.partition(":")[2] for line in lines if line.lower().startswith("host:")]
    names = {host.strip().rpartition(":")[0] or host.strip() for host in hosts}
    if not names <= NAMES:
        return _whole("403 Forbidden", "Ask for 127.0.0.1 or localhost.\n")
    if target != "/metrics":
        return _whole("404 Not Found", "There is /metrics alone.\n")
    if method not in ("GET", "HEAD"):
        return _whole("405 Method Not Allowed", "Use GET.\n", "Allow: GET, HEAD\r\n")
    try:
        text = render(await asyncio.to_thread(read))
    except OSError as error:
        return _whole("503 Service Unavailable", f"The metrics can't be read: {error}.\n")
    whole = _whole("200 OK", text, f"Content-Type: {CONTENT_TYPE}\r\n")
    return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else whole


def _whole(status: str, text: str, headers: str = "") -> bytes:
    body = text.encode()
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{headers}{length}\r\n".encode() + body
