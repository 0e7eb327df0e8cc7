"""A server in a process of its own, and clients that can misbehave."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..support.server_log import unexpected

STOP_SECONDS = 3.0
EXIT_SECONDS = 15.0  # for a server to end by itself; less than the 20 s that a drain may take
ROOT = Path(__file__).resolve().parents[2]
TWISTED_TLS = "ignore:Passing pyOpenSSL:DeprecationWarning"  # Twisted's own use of pyOpenSSL
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Worker:
    """`python -m realtime.server` on an inherited socket."""

    def __init__(
        self,
        *options: str,
        app: str = "tests.server.apps",
        uds: str = "",
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        self.exit_codes: set[int] = set()  # besides 0, where a test has it end otherwise
        self.seen = 0  # how much of the output belongs to tests before this one
        self.expected: list[str] = []  # texts of errors that the test causes on purpose
        self.directory = tempfile.TemporaryDirectory()
        self.log = Path(self.directory.name, "log")
        self.output = Path(self.directory.name, "output")
        self.uds = uds
        self.listener = socket.socket(socket.AF_UNIX if uds else socket.AF_INET)
        self.listener.bind(uds or ("127.0.0.1", 0))
        self.listener.listen(100)
        self.address: Any = self.listener.getsockname()
        ready, tell = os.pipe()
        fds = (self.listener.fileno(), tell, *pass_fds)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "error", "-W", TWISTED_TLS, "-u"),
                    *("-m", "realtime.server"),
                    *("--fd", str(fds[0]), "--ready-fd", str(fds[1])),
                    *options,
                    f"{app}:application",
                ],
                cwd=ROOT,
                env={**os.environ, "TEST_LOG": str(self.log), "PYTHONFAULTHANDLER": "1"},
                pass_fds=fds,
                stdout=output,
                stderr=output,
            )
        os.close(tell)
        self.listener.close()
        readable, _, _ = select.select([ready], [], [], 40)
        said = os.read(ready, 1) if readable else b""
        os.close(ready)
        assert said == b"1", self.text

    @property
    def text(self) -> str:
        """What it has written to stdout and stderr since the test began."""
        return self.output.read_bytes()[self.seen :].decode()

    def client(self, **options: Any) -> "Client":
        return Client(self.address, **options)

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        with self.client() as client:
            client.request(path, "Connection: close")
            return client.response().body

    def check(self) -> None:
        """Fail if it has reported an error that the test did not expect."""
        text = self.text
        self.seen += len(text.encode())
        assert not (found := unexpected(text.splitlines(), self.expected)), "\n".join(found)

    def reset(self, seconds: float = 1.5) -> bool:
        """Make it as good as new for the next test or attempt; False if it isn't."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            with self.client() as client:
                client.request("/reset", "Connection: close")
                if client.response().status == 200:
                    self.check()  # what came after the last test's own check
                    self.expected = []
                    self.log.unlink(missing_ok=True)
                    return True
            time.sleep(0.02)
        return False

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get("/events"))
        return answer

    def wait_for(self, event: str, seconds: float = 15.0) -> float:
        """Wait until the application has noted an event; how long it took."""
        start = time.monotonic()
        events: list[str] = []
        while time.monotonic() < start + seconds:
            events = self.status()["events"]
            if event in events:
                return time.monotonic() - start
            time.sleep(0.03)
        raise AssertionError(f"{event!r} is not in {events} after {seconds} s")

    def rss(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, so that coverage is written; SIGKILL for an application that goes on."""
        if self.process.poll() is None:
            self.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = 0
        try:
            self.check()
            assert code in (0, *self.exit_codes), self.text
        finally:
            self.directory.cleanup()


class Response:
    """What a client read."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Client:
    """A socket that says exactly what it is told."""

    def __init__(self, address: Any, timeout: float = 20.0, receive_buffer: int = 0) -> None:
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.sock = socket.socket(family)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.buffer = bytearray()  # grows in place: large bodies come in thousands of pieces

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def send(self, data: bytes, pieces: int = 0) -> None:
        """Send it; with `pieces`, that many bytes at a time."""
        if not pieces:
            self.sock.sendall(data)
            return
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), pieces):
            self.sock.sendall(data[start : start + pieces])
            time.sleep(0.0005)

    def request(self, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def until(self, mark: bytes) -> bytes:
        """Read up to and including the mark."""
        while mark not in self.buffer:
            data = self.sock.recv(65_536)
            assert data, f"closed after {self.buffer!r}"
            self.buffer += data
        return self._take(self.buffer.index(mark) + len(mark))

    def _take(self, size: int) -> bytes:
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = self.sock.recv(65_536)
            assert data, f"closed after {self.buffer!r}"
            self.buffer += data
        return self._take(size)

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        with suppress(ConnectionResetError):
            while data := self.sock.recv(65_536):
                self.buffer += data
        return self._take(len(self.buffer))

    def head(self) -> Response:
        first, *lines = self.until(b"\r\n\r\n").decode("latin1").split("\r\n")[:-2]
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Response(int(first.split()[1]), headers, b"")

    def response(self, *, head: bool = False) -> Response:
        """A whole response, with its body taken out of its framing."""
        response = self.head()
        if head or response.status in (204, 304) or response.status < 200:
            return response
        if "content-length" in response.headers:
            response.body = self.exactly(int(response.headers["content-length"]))
        elif response.headers.get("transfer-encoding") == "chunked":
            while size := int(self.until(b"\r\n"), 16):
                response.body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            assert self.exactly(2) == b"\r\n"
        else:
            response.body = self.rest()
        return response

    # WebSocket

    def upgrade(self, path: str = "/echo", *headers: str, data: bytes = b"") -> Response:
        """The handshake's response; `data` is sent right behind the request."""
        lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}"]
        lines = [f"GET {path} HTTP/1.1", "Host: test", *lines, "Sec-WebSocket-Version: 13"]
        self.send("\r\n".join([*lines, *headers, "", ""]).encode() + data)
        response = self.head()
        if response.status != 101:
            response.body = self.rest()
        return response

    def frame(self) -> tuple[int, bytes]:
        """The first byte and the payload of the next frame."""
        first, size = self.exactly(2)
        assert size < 128, "a server must not mask"
        if size == 126:
            size = int.from_bytes(self.exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self.exactly(8), "big")
        return first, self.exactly(size)

    def closed(self) -> int:
        """The code of the close frame that comes next, after which the connection ends."""
        first, payload = self.frame()
        assert first == 0x88, (first, payload)
        assert self.rest() == b""
        return int.from_bytes(payload[:2], "big") if payload else 1005


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes = b"\x37\xfa\x21\x3d",
    masked: bool = True,
    length: int | None = None,
    head: bytes = b"",
) -> bytes:
    """A client's frame. `head` replaces the length field, `length` the length in it."""
    size = len(payload) if length is None else length
    first = bytes((fin << 7 | rsv << 4 | opcode,))
    bit = masked << 7
    if not head:
        if size < 126:
            head = bytes((bit | size,))
        elif size < 65_536:
            head = bytes((bit | 126,)) + size.to_bytes(2, "big")
        else:
            head = bytes((bit | 127,)) + size.to_bytes(8, "big")
    if masked:
        payload = key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return first + head + payload


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """The condition's first true value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)
    return value
