"""Files as responses: any size in constant memory, in parts if asked, by the kernel if it can."""

import mimetypes
import os
import re
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from django.core.exceptions import SuspiciousOperation
from django.core.files.storage import FileSystemStorage, Storage
from django.http import Http404, HttpRequest
from django.utils.cache import get_conditional_response

from ..conf import settings
from ..server.extensions import file_part
from ..utils.transfers import in_transfer_thread, transfer_threads
from .ranges import Multipart, Range, Unsatisfiable, last_modified, parse_ranges, range_applies
from .response import AsyncStreamResponse

# Windows opens a device for these, whatever the folder or the extension.
_DEVICE = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I
)
_PLAIN = re.compile(r"[ !#$&+\-.0-9A-Z^_`a-z{|}~(),;=@\[\]']+")  # needs no escape inside quotes
_KEPT_BY_ACCEL: Final = ("Content-Type", "Content-Disposition", "Cache-Control")


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
        self._closed = False

    @abstractmethod
    def _read(self, offset: int, size: int) -> bytes: ...

    @abstractmethod
    def _close(self) -> None: ...

    def fileno(self) -> int | None:
        """The file descriptor, where the kernel can copy from it."""
        return None

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; none at the end."""
        with self._lock:
            return b"" if self._closed else self._read(offset, size)

    def close(self) -> None:
        """Let go of it; more than once does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def close_soon(self) -> None:
        """The same from the event loop: at once, or in a thread if one is still reading."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            if self.fileno() is not None:
                self.close()
                return
        transfer_threads().submit(self.close)

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
        if not getattr(self, "_closed", True):
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


async def open_in(root: str | os.PathLike[str], name: str) -> LocalFile:
    """The file of this name in or below `root`; `Http404` for whatever else a name can say.

    Refused are paths that leave `root`, by `..`, from `/` or over a symbolic link, hidden files,
    directories, pipes and devices, and names that are devices on Windows.
    """
    return await in_transfer_thread(open_now, root, name)


async def open_stored(storage: Storage, name: str) -> Source:
    """A file of a storage; `Http404` if it has none of this name."""
    return await in_transfer_thread(_open_stored, storage, name)


def check_name(name: str) -> list[str]:
    """The parts of a relative path; `Http404` for what must not be one."""
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
    """`open_in` for a thread of your own."""
    parts = check_name(name)
    try:
        top = Path(root).resolve(strict=True)
        path = top.joinpath(*parts).resolve(strict=True)
        below = path.relative_to(top).parts
        return LocalFile(_open_below(top, below), parts[-1], "/".join(below))
    except (OSError, ValueError, RuntimeError):  # absent, outside, too long, a loop of links
        raise _not_found() from None


def _open_below(top: Path, parts: tuple[str, ...]) -> int:
    """Open what the resolved path names, step by step without following a link: somebody may have
    put one there since. Without waiting: opening a pipe would, for a writer."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
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
        if (kind.open, getattr(kind, "_open", None)) == (plain.open, plain._open):
            # Not waiting for somebody to write into a pipe.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            return LocalFile(_only_regular(os.open(storage.path(name), flags)), parts[-1])
        file = storage.open(name, "rb")
    except (OSError, ValueError, SuspiciousOperation):
        raise _not_found() from None
    modified = None
    with suppress(NotImplementedError):
        modified = storage.get_modified_time(name).timestamp()
    return StoredFile(file, parts[-1], storage.size(name), modified)


class FileStreamResponse(AsyncStreamResponse):
    """A file, or the parts of it that the request asks for (RFC 9110, sections 13 to 15).

    Get the source by `open_in` or `open_stored`; the response closes it. As a download unless
    `as_attachment=False`: an HTML file shown inline runs its scripts in the name of the site.
    """

    stream_headers: ClassVar[dict[str, str]] = {
        **AsyncStreamResponse.stream_headers,
        # A compressor would make the parts' offsets wrong, and take the kernel's copy away.
        "Content-Encoding": "identity",
        "X-Content-Type-Options": "nosniff",
    }

    def __init__(
        self,
        request: HttpRequest,
        source: Source,
        *,
        filename: str | None = None,
        as_attachment: bool = True,
        content_type: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(source, Source):
            raise TypeError(
                f"FileStreamResponse needs an open source, got {type(source).__name__}: write "
                "`await open_in(folder, name)`, or `await open_stored(storage, name)`."
            )
        self._source = source
        self._plan: list[bytes | Range] = []
        scope: Mapping[str, Any] = getattr(request, "scope", {})
        self._kernel = file_part(scope)
        name = source.name if filename is None else filename
        content_type = content_type or source.content_type
        super().__init__(self._parts(), content_type=content_type, **kwargs)
        self._resource_closers.append(source.close)  # type: ignore[attr-defined]
        self.headers["Content-Disposition"] = content_disposition(name, as_attachment)
        if settings.ACCEL_REDIRECT and source.location is not None:
            self._leave_to_proxy(source.location)
        else:
            self._answer(request, content_type)

    def encode(self, source: AsyncIterable[Any]) -> AsyncGenerator[bytes, None]:
        return source  # type: ignore[return-value]

    def _leave_to_proxy(self, location: str) -> None:
        """nginx looks at ranges and conditions itself."""
        for name in set(self.headers) - set(_KEPT_BY_ACCEL):
            del self.headers[name]
        prefix = settings.ACCEL_REDIRECT.rstrip("/")
        self.headers["X-Accel-Redirect"] = f"{prefix}/{quote(location)}"
        self.headers["Content-Length"] = "0"

    def _answer(self, request: HttpRequest, content_type: str) -> None:
        source = self._source
        self.headers["Accept-Ranges"] = "bytes"
        if source.etag is not None:
            self.headers["ETag"] = source.etag
        modified = None if source.modified is None else int(source.modified)
        if source.modified is not None:
            self.headers["Last-Modified"] = last_modified(source.modified)
        refusal: Any = get_conditional_response(request, source.etag, modified)
        if refusal is not None:
            self._without_body(refusal.status_code)
            return
        size = source.size
        try:
            ranges = self._ranges(request, size)
        except Unsatisfiable:
            self._without_body(416)
            self.headers["Content-Range"] = f"bytes */{size}"
            self.headers["Content-Length"] = "0"
            return
        self._plan = [Range(0, size)] if size else []
        length = size
        if ranges is not None and len(ranges) == 1:
            self.status_code = 206
            self.headers["Content-Range"] = ranges[0].content_range(size)
            length = ranges[0].size
            self._plan = [*ranges]
        elif ranges is not None:
            self.status_code = 206
            multipart = Multipart(ranges, size, content_type)
            self.headers["Content-Type"] = multipart.content_type
            length = multipart.content_length
            self._plan = []
            for part in ranges:
                self._plan += [multipart.opening(part), part]
            self._plan.append(multipart.closing)
        self.headers["Content-Length"] = str(length)
        if request.method == "HEAD":
            self._plan = []

    def _ranges(self, request: HttpRequest, size: int) -> list[Range] | None:
        source = self._source
        header, if_range = request.headers.get("Range"), request.headers.get("If-Range")
        if request.method != "GET" or header is None:
            return None
        if not range_applies(if_range, source.etag, source.modified, time.time()):
            return None
        return parse_ranges(header, size, settings.MAX_RANGES)

    def _without_body(self, status: int) -> None:
        self.status_code = status
        for name in ("Content-Type", "Content-Disposition", "Content-Encoding"):
            del self.headers[name]

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self._plan:
                if isinstance(piece, bytes):
                    yield piece
                    continue
                fileno = self._source.fileno()
                if self._kernel is not None and fileno is not None and self.is_untouched:
                    part = self._kernel(fileno, piece.start, piece.size)
                    yield part
                    if not part.revoke():
                        continue
                async for chunk in self._chunks(piece):
                    yield chunk
        finally:
            self._source.close_soon()

    async def _chunks(self, piece: Range) -> AsyncGenerator[bytes, None]:
        offset = piece.start
        while offset < piece.stop:
            size = min(settings.FILE_CHUNK_BYTES, piece.stop - offset)
            chunk = await in_transfer_thread(self._source.read, offset, size)
            if not chunk:
                # The head has promised more; cut the connection, so that the client knows.
                raise EOFError(f"{self._source.name!r} has become shorter than {piece.stop} bytes.")
            offset += len(chunk)
            yield chunk


def guess_type(name: str) -> str:
    """The media type by the name; of a compressed file, that of the compression."""
    guessed, encoding = mimetypes.guess_type(name)
    if encoding is not None:
        known = {"br": "application/x-brotli", "bzip2": "application/x-bzip"}
        known |= {"gzip": "application/gzip", "xz": "application/x-xz"}
        return known.get(encoding, "application/octet-stream")
    return guessed or "application/octet-stream"


def content_disposition(name: str, as_attachment: bool) -> str:
    """RFC 6266: the name as it is in `filename*` (RFC 8187), and what is left of it in ASCII for
    who can't read that."""
    kind = "attachment" if as_attachment else "inline"
    if _PLAIN.fullmatch(name):
        return f'{kind}; filename="{name}"'
    # Not a byte of a header: lone surrogates are what a file name that is not UTF-8 decodes to.
    encoded = quote(name.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
    fallback = "".join(c if _PLAIN.fullmatch(c) else "_" for c in name)
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{encoded}"
