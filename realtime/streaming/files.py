"""Files as responses: any size in constant memory, in parts if asked, by the kernel if it can."""

import time
from collections.abc import AsyncGenerator
from typing import Any, ClassVar, Final
from urllib.parse import quote

from django.http import HttpRequest
from django.utils.cache import get_conditional_response

from ..conf import settings
from ..server.extensions import file_part
from ..server.sendfile import WINDOW
from ..utils.asgi import scope_of
from ..utils.threads import TRANSFER
from .ranges import Multipart, Range, Unsatisfiable, last_modified, parse_ranges, range_applies
from .response import DownloadResponse
from .sources import Source

_KEPT_BY_ACCEL: Final = ("Content-Type", "Content-Disposition", "Cache-Control")


class FileStreamResponse(DownloadResponse):
    """A file, or the parts of it that the request asks for (RFC 9110, sections 13 to 15).

    Get the source by `open_file` or `open_stored`; the response closes it. As a download unless
    `as_attachment=False`: an HTML file shown inline runs its scripts in the name of the site.
    """

    stream_headers: ClassVar[dict[str, str]] = {
        **DownloadResponse.stream_headers,
        # A compressor would make the parts' offsets wrong, and take the kernel's copy away.
        "Content-Encoding": "identity",
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
                "`await open_file(folder, name)`, or `await open_stored(storage, name)`."
            )
        self._source = source
        self._plan: list[bytes | Range] = []
        self._kernel = file_part(scope_of(request))
        name = source.name if filename is None else filename
        content_type = content_type or source.content_type
        super().__init__(
            self._parts(), name, as_attachment=as_attachment, content_type=content_type, **kwargs
        )
        self._resource_closers.append(source.close)  # type: ignore[attr-defined]
        if settings.ACCEL_REDIRECT and source.location is not None:
            self._leave_to_proxy(source.location)
        else:
            self._answer(request, content_type)

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
                offset, fileno = piece.start, self._source.fileno()
                if self._kernel is not None and fileno is not None and self.is_untouched:
                    # By windows: where the stream has to end, it ends between two of them.
                    while offset < piece.stop:
                        part = self._kernel(fileno, offset, min(WINDOW, piece.stop - offset))
                        yield part
                        if part.revoke():
                            break
                        offset += part.size
                async for chunk in self._chunks(offset, piece.stop):
                    yield chunk
        finally:
            self._source.close_soon()

    async def _chunks(self, offset: int, stop: int) -> AsyncGenerator[bytes, None]:
        while offset < stop:
            size = min(settings.FILE_CHUNK_BYTES, stop - offset)
            chunk = await TRANSFER.run(self._source.read, offset, size)
            if not chunk:
                # The head has promised more; cut the connection, so that the client knows.
                raise EOFError(f"{self._source.name!r} has become shorter than {stop} bytes.")
            offset += len(chunk)
            yield chunk
