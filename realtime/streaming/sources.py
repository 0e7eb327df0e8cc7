"""Open files that can be read from anywhere in them: in a folder, or in a storage of Django."""

import mimetypes
import os
import re
import stat
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import FileSystemStorage, Storage
from django.http import Http404

from ..utils.threads import TRANSFER

# Windows opens a device for these, whatever the folder or the extension.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I
)
# Without waiting: opening a pipe would, for a writer.
_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


class Source(ABC):
    """Bytes that can be read from anywhere in them; `read` and `close` may block."""

    name: str
    size: int
    content_type: str
    modified: float | None = None
    etag: str | None = None
    location: str | None = None
    """The path below the folder that `ACCEL_REDIRECT` stands for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # a thread may still be reading when the client is gone
        self._is_closed = False

    @abstractmethod
    def _read(self, offset: int, size: int) -> bytes: ...

    @abstractmethod
    def _close(self) -> None: ...

    def fileno(self) -> int | None:
        """Return the file descriptor, where the kernel can copy from it."""
        return None

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; none at the end."""
        with self._lock:
            return b"" if self._is_closed else self._read(offset, size)

    def close(self) -> None:
        """Let go of it; more than once does nothing."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._close()

    def close_soon(self) -> None:
        """Close from the event loop: at once, or in a thread if one is still reading."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            if self.fileno() is not None:
                self.close()
                return
        TRANSFER.submit(self.close)

    def _describe(self, name: str, size: int, modified: float | None) -> None:
        self.name, self.size, self.modified = name, size, modified
        self.content_type = guess_type(name)  # here, in a thread: it may read the system's tables
        if modified is not None:
            self.etag = f'"{int(modified * 1e6):x}-{size:x}"'


class LocalFile(Source):
    """An open file of this machine; it stays whole if its name goes away."""

    def __init__(self, fileno: int, name: str, location: str | None = None) -> None:
        super().__init__()
        self._fileno = fileno
        self.location = location
        status = os.fstat(fileno)
        self._describe(name, status.st_size, status.st_mtime)

    def fileno(self) -> int | None:
        return self._fileno

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fileno, size, offset)

    def _close(self) -> None:
        os.close(self._fileno)

    def __del__(self) -> None:
        # A response that nobody began to send: without this it would cost a descriptor for ever.
        if not getattr(self, "_is_closed", True):
            os.close(self._fileno)


class StoredFile(Source):
    """An open file of a Django storage, wherever that keeps it."""

    def __init__(self, file: Any, name: str, size: int, modified: float | None) -> None:
        super().__init__()
        self._file = file
        self._place = 0
        self._describe(name, size, modified)

    def _read(self, offset: int, size: int) -> bytes:
        if offset != self._place:
            self._file.seek(offset)
        data: bytes = self._file.read(size)
        self._place = offset + len(data)
        return data

    def _close(self) -> None:
        self._file.close()


async def open_file(root: str | os.PathLike[str], name: str) -> LocalFile:
    """Return the file of this name in or below `root`; `Http404` for whatever else a name can say.

    Refused are paths that leave `root`, by `..`, from `/` or over a symbolic link, hidden files,
    over a link too, directories, pipes and devices, and names that are devices on Windows.
    """
    return await TRANSFER.run(open_now, root, name)


async def open_stored(storage: Storage, name: str) -> Source:
    """Return a file of a storage; `Http404` if it has none of this name."""
    return await TRANSFER.run(_open_stored, storage, name)


def check_name(name: str) -> list[str]:
    """Return the parts of a relative path; `Http404` for what must not be one."""
    parts = name.split("/")
    for part in parts:
        if not part or part.startswith(".") or "\0" in part or "\\" in part:
            raise _not_found()
        if _DEVICE.fullmatch(part) or (os.name == "nt" and ":" in part):
            raise _not_found()
    return parts


def _not_found() -> Http404:
    return Http404("There is no file of this name.")


def open_now(root: str | os.PathLike[str], name: str) -> LocalFile:
    """`open_file` for a thread of your own."""
    parts = check_name(name)
    try:
        top = Path(root).resolve(strict=True)
        path = top.joinpath(*parts).resolve(strict=True)
        below = path.relative_to(top).parts
        check_name("/".join(below))  # a link may lead to what is hidden
        return LocalFile(_open_below(top, below), parts[-1], "/".join(below))
    except (OSError, ValueError, RuntimeError):  # absent, outside, too long, a loop of links
        raise _not_found() from None


def _open_below(top: Path, parts: tuple[str, ...]) -> int:
    """Open what the resolved path names, step by step without following a link.

    Somebody may have put one there since.
    """
    flags = _READ | getattr(os, "O_NOFOLLOW", 0)
    if os.open not in os.supports_dir_fd:
        return _only_regular(os.open(top.joinpath(*parts), flags))
    folder = os.open(top, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _only_regular(os.open(parts[-1] if parts else ".", flags, dir_fd=folder))
    finally:
        os.close(folder)


def _only_regular(fileno: int) -> int:
    if not stat.S_ISREG(os.fstat(fileno).st_mode):
        os.close(fileno)
        raise FileNotFoundError
    return fileno


def _open_stored(storage: Storage, name: str) -> Source:
    parts = check_name(name)
    # Of the class, or what it wraps lazily. A subclass may encrypt what is on the disk: then it has
    # to be asked for the bytes.
    kind: Any = storage.__class__
    plain: Any = FileSystemStorage
    try:
        if (kind.open, getattr(kind, "_open", None)) == (plain.open, plain._open):  # noqa: SLF001 - documented
            return LocalFile(_only_regular(os.open(storage.path(name), _READ)), parts[-1])
        file = storage.open(name, "rb")
    except (OSError, ValueError, SuspiciousOperation):
        raise _not_found() from None
    modified = None
    with suppress(NotImplementedError):
        modified = storage.get_modified_time(name).timestamp()
    return StoredFile(file, parts[-1], storage.size(name), modified)


def guess_type(name: str) -> str:
    """Return the media type by the name; of a compressed file, that of the compression."""
    guessed, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        known = {"br": "application/x-brotli", "bzip2": "application/x-bzip"}
        known |= {"gzip": "application/gzip", "xz": "application/x-xz"}
        return known.get(encoding, "application/octet-stream")
    return guessed or "application/octet-stream"
