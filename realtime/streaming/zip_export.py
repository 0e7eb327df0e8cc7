"""Many files as one ZIP, made while it is sent."""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..conf import settings
from ..exceptions import MissingPackage
from ..utils.threads import TRANSFER
from .response import DownloadResponse
from .sources import Source, open_now


class _Contents(Protocol):
    """What a member opens; `Source` is one."""

    size: int

    def read(self, offset: int, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Member(NamedTuple):
    """A file for an archive: its name there, how to open it, and its size if that is known.

    `open`, which may block, returns an object with `size`, `read(offset, size)` and `close()`.
    """

    name: str
    open: Callable[[], _Contents]
    size: int | None = None


class ZipResponse(DownloadResponse):
    """An archive of `members`, made while it is sent; any size, as ZIP64 where it has to be.

    Stored, not compressed, unless `compress` is a level from 1 to 9. Of stored members whose sizes
    are all known the archive's size is known too, and sent.
    """

    stream_content_type = "application/zip"

    def __init__(
        self,
        members: Iterable[Member],
        *,
        filename: str = "files.zip",
        compress: int = 0,
        **kwargs: Any,
    ) -> None:
        try:  # here: a site without ZIPs needs none
            import zipstream  # type: ignore[import-untyped]
        except ModuleNotFoundError as error:
            raise MissingPackage("ZipResponse", "zipstream-ng", "zip") from error
        members = list(members)
        sized = not compress and all(member.size is not None for member in members)
        method = zipstream.ZIP_DEFLATED if compress else zipstream.ZIP_STORED
        archive = zipstream.ZipStream(
            compress_type=method, compress_level=compress or None, sized=sized
        )
        for member in members:
            archive.add(_contents(member), _in_utf8(member.name), size=member.size)
        super().__init__(in_pieces(iter(archive), settings.FILE_CHUNK_BYTES), filename, **kwargs)
        if sized:
            self.headers["Content-Length"] = str(len(archive))


def _in_utf8(name: str) -> str:
    # Lone surrogates are what a file name that is not UTF-8 decodes to.
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _contents(member: Member) -> Iterator[bytes]:
    """Yield the bytes of a member, as many as were announced.

    A file that has become shorter is an error, which cuts the download.
    """
    with closing(member.open()) as source:
        offset, stop = 0, source.size if member.size is None else member.size
        while offset < stop:
            data = source.read(offset, min(settings.FILE_CHUNK_BYTES, stop - offset))
            if not data:
                raise EOFError(f"{member.name!r} has become shorter than {stop} bytes.")
            offset += len(data)
            yield data


async def in_pieces(iterator: Iterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """Yield what a synchronous iterator makes, in pieces of about `size` bytes.

    Each is made in one of the threads for transfers. The iterator is closed at the end, or when the
    client has left.
    """
    source = _LockedIterator(iterator)
    try:
        while piece := await TRANSFER.run(source.take, size):
            yield piece
    finally:
        TRANSFER.submit(source.close)


class _LockedIterator:
    """An iterator that one thread at a time may touch.

    Cancelling the coroutine that waits for a thread does not stop the thread.
    """

    def __init__(self, iterator: Iterator[bytes]) -> None:
        self._iterator = iterator
        self._lock = threading.Lock()

    def take(self, size: int) -> bytes:
        with self._lock:
            parts: list[bytes] = []
            for part in self._iterator:
                parts.append(part)
                size -= len(part)
                if size <= 0:
                    break
            return b"".join(parts)

    def close(self) -> None:
        with self._lock:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()


async def files_below(root: str | os.PathLike[str]) -> list[Member]:
    """Return the files in and below a folder that `open_file` would open, by name."""
    return await TRANSFER.run(lambda: sorted(_files_below(Path(root))))


def _files_below(root: Path) -> Iterator[Member]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            inside = path.relative_to(root).as_posix()
            yield Member(inside, _opener(root, inside), path.stat().st_size)


def _opener(root: Path, name: str) -> Callable[[], Source]:
    return lambda: open_now(root, name)
