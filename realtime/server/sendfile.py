"""Files that the kernel copies to the socket, without a byte in this process.

Offered on plain sockets under ASGI's own name: `http.response.zerocopysend` in
`scope["extensions"]`, and the message of that name. An application inside a framework can't send a
message of its own, only parts of a body: it asks `scope["extensions"]["realtime.sendfile"]["part"]`
for one that is empty and stands for the file. Every layer between passes it on as the empty part
that it is, or swallows it; after it was sent, `revoke()` says which.
"""

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

WINDOW: Final = 1_048_576  # bytes handed to the kernel before others get a turn
READ_SIZE: Final = 262_144  # bytes read at once where the kernel has to be helped

T = TypeVar("T")
Progress = Callable[[int], None]  # is told how many bytes went
AVAILABLE: Final = sys.platform == "linux" and hasattr(os, "sendfile")
UNABLE: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW})
"""What sendfile says of a file that it can't copy from."""


class FilePart(bytes):
    """An empty part of a body that stands for `size` bytes of an open file."""

    fileno: int
    offset: int
    size: int
    _state: str

    def __new__(cls, fileno: int, offset: int, size: int) -> "FilePart":
        self = super().__new__(cls)
        self.fileno, self.offset, self.size = fileno, offset, size
        self._state = "new"
        return self

    def take(self) -> bool:
        """Return True if the server sends the file now, False if the application does."""
        if self._state == "new":
            self._state = "taken"
        return self._state == "taken"

    def revoke(self) -> bool:
        """From now on it is nothing but empty; False if the file was sent."""
        if self._state == "new":
            self._state = "revoked"
        return self._state == "revoked"


EXTENSIONS: Final[dict[str, dict[str, Any]]] = {
    "http.response.zerocopysend": {},
    "realtime.sendfile": {"part": FilePart},
}


def span(message: dict[str, Any]) -> tuple[int, int, int]:
    """File descriptor, offset and count of an `http.response.zerocopysend`."""
    file = message["file"]
    fileno: int = file if isinstance(file, int) else file.fileno()
    offset, count = message.get("offset"), message.get("count")
    if offset is None:
        offset = os.lseek(fileno, 0, os.SEEK_CUR)
    if count is None:
        count = max(0, os.fstat(fileno).st_size - offset)
    if message.get("offset") is None:
        os.lseek(fileno, offset + count, os.SEEK_SET)  # as reading it would
    return fileno, offset, count


def in_memory(fileno: int, offset: int, size: int) -> bool:
    """Return whether the kernel has the first and the last page.

    Sendfile would wait for the disk, and the event loop with it.
    """
    page = bytearray(1)
    try:
        return all(
            os.preadv(fileno, [page], place, os.RWF_NOWAIT) >= 0
            for place in (offset, offset + size - 1)
        )
    except OSError:  # EAGAIN; or a file system that can't tell
        return False


class _Transport(Protocol):
    """What sends a file's part."""

    closed: bool

    @property
    def pending(self) -> bool:
        """Return whether something written has not gone out yet."""

    def fileno(self) -> int: ...

    def write(self, data: bytes) -> None: ...

    def keep(self, data: bytes, sent: int) -> None:
        """Queue data but its first `sent` bytes, until the socket takes more."""

    async def drain(self) -> None: ...

    def abort(self) -> None: ...


async def send(
    transport: _Transport, fileno: int, offset: int, count: int, progress: Progress
) -> None:
    """Have the kernel copy a part of a file; see `Transport.send_file`."""
    while count and not transport.closed:
        if transport.pending:
            await transport.drain()
            continue
        size = min(count, WINDOW)
        try:
            if in_memory(fileno, offset, size):
                sent = os.sendfile(transport.fileno(), fileno, offset, size)
            else:
                sent = await copy(transport.fileno(), fileno, offset, size)
        except (BlockingIOError, InterruptedError):
            if not transport.closed:
                transport.keep(b"", 0)  # nothing, which goes out once there is room again
            continue
        except OSError as error:
            if error.errno not in UNABLE:
                transport.abort()
                return
            data = await read(fileno, offset, size)
            transport.write(data)
            sent = len(data)
        if not sent:
            raise EOFError(f"The file ended {count} bytes before its part did.")
        progress(sent)
        offset += sent
        count -= sent
        await asyncio.sleep(0)


async def copy(out: int, fileno: int, offset: int, size: int) -> int:
    """`os.sendfile` in a thread, which may wait for the disk; for the socket it never does."""
    return await _in_thread(
        lambda own_out, own_file: os.sendfile(own_out, own_file, offset, size), out, fileno
    )


async def read(fileno: int, offset: int, size: int) -> bytes:
    """Return some bytes, read in a thread."""
    return await _in_thread(lambda own: os.pread(own, min(size, READ_SIZE), offset), fileno)


async def _in_thread(call: Callable[..., T], *descriptors: int) -> T:
    """Return what `call` does with copies of the descriptors, in a thread, which closes them.

    The thread works on after a cancellation, when the descriptors may be closed already.
    """
    own: list[int] = []

    def close() -> None:
        while own:
            os.close(own.pop())

    def run() -> T | OSError:
        try:
            return call(*own)
        except OSError as error:  # returned: after a cancellation nobody would catch it
            return error
        finally:
            close()

    try:
        for descriptor in descriptors:
            own.append(os.dup(descriptor))
    except OSError:  # no more of them
        close()
        raise
    # Not cancelled while it waits for a thread: nobody else would close the copies.
    result = await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, run))
    if isinstance(result, OSError):
        raise result
    return result
