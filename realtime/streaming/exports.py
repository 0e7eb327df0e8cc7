"""Downloads that are made while they are sent: a table as CSV, many files as one ZIP."""

import csv
import io
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from django.db.models import QuerySet

from ..conf import settings
from ..exceptions import MissingPackage
from ..utils.transfers import in_pieces, in_transfer_thread
from .files import Source, content_disposition, open_now
from .pages import row_pages
from .response import AsyncStreamResponse

# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BOM: Final = "\ufeff".encode()


class _Download(AsyncStreamResponse):
    """A body that is made as it is sent, under a file name."""

    stream_headers: ClassVar[dict[str, str]] = {
        **AsyncStreamResponse.stream_headers,
        "X-Content-Type-Options": "nosniff",
    }

    def __init__(self, source: AsyncIterable[bytes], filename: str, **kwargs: Any) -> None:
        super().__init__(source, **kwargs)
        self.headers["Content-Disposition"] = content_disposition(filename, True)

    def encode(self, source: AsyncIterable[Any]) -> AsyncGenerator[bytes, None]:
        return source  # type: ignore[return-value]


class CSVResponse(_Download):
    """`fields` of a queryset's rows as CSV (RFC 4180), UTF-8, with the fields' names on top.

    `escape_formulas` puts a ' before text that a spreadsheet would execute; turn it on where
    people other than you have written the text. `bom` tells Excel that this is UTF-8.
    """

    stream_content_type = "text/csv; charset=utf-8"

    def __init__(
        self,
        source: QuerySet[Any],
        *,
        fields: Sequence[str],
        filename: str = "export.csv",
        escape_formulas: bool = False,
        bom: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(source, QuerySet):
            raise TypeError(
                f"CSVResponse needs a queryset, got {type(source).__name__}: for other sources "
                "give an AsyncStreamResponse what `encode_csv` makes of lists of rows."
            )
        top = (_BOM if bom else b"") + encode_csv([fields], len(fields))
        pages = row_pages(
            source, lambda rows: encode_csv(rows, len(fields), escape_formulas), fields=fields
        )
        super().__init__(_behind(top, pages), filename, **kwargs)


async def _behind(top: bytes, pages: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pages):
        yield top
        async for page in pages:
            yield page


def encode_csv(rows: Iterable[Sequence[Any]], width: int, escape_formulas: bool = False) -> bytes:
    """The first `width` values of each row."""
    buffer = io.StringIO(newline="")
    cut = itemgetter(slice(width))
    values: Iterable[Sequence[Any]] = map(cut, rows)
    if escape_formulas:
        values = ([_harmless(value) for value in row] for row in values)
    csv.writer(buffer).writerows(values)
    return buffer.getvalue().encode()


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    return value


class Member(NamedTuple):
    """A file for an archive: its name there, its size if that is known, and how to open it, which
    may block."""

    name: str
    open: Callable[[], Source]
    size: int | None = None


class ZipResponse(_Download):
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
            archive.add(_contents(member), member.name, size=member.size)
        super().__init__(in_pieces(iter(archive), settings.FILE_CHUNK_BYTES), filename, **kwargs)
        if sized:
            self.headers["Content-Length"] = str(len(archive))


def _contents(member: Member) -> Iterator[bytes]:
    """The bytes of a member, as many as were announced; a file that has become shorter is an error,
    which cuts the download."""
    with closing(member.open()) as source:
        offset, stop = 0, source.size if member.size is None else member.size
        while offset < stop:
            data = source.read(offset, min(settings.FILE_CHUNK_BYTES, stop - offset))
            if not data:
                raise EOFError(f"{member.name!r} has become shorter than {stop} bytes.")
            offset += len(data)
            yield data


async def files_below(root: str | os.PathLike[str]) -> list[Member]:
    """The files in and below a folder that `streaming.files.open_in` would open, by name."""
    return await in_transfer_thread(lambda: sorted(_files_below(Path(root))))


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
