"""Streaming response classes: Django's own, with what each format, proxy and middleware needs."""

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, ClassVar
from urllib.parse import quote

from django.http import StreamingHttpResponse

from ..conf import settings
from ..utils.aio import aclose
from ..utils.pump import chunked
from ..utils.threads import release_request_thread
from .source_context import RequestVariables
from .sse import KEEPALIVE

_PLAIN = re.compile(r"[ !#$&+\-.0-9A-Z^_`a-z{|}~(),;=@\[\]']+")  # needs no escape inside quotes


class StreamResponse(StreamingHttpResponse):
    """A response over an async iterable: constant memory, and `finally` runs when the client goes.

    A synchronous iterable is refused: under ASGI, Django would read the whole of it into memory
    before it sends the first byte.
    """

    stream_content_type: ClassVar[str] = "application/octet-stream"
    # Cache-Control: no-transform keeps proxies from compressing or rewriting a live stream;
    # X-Accel-Buffering turns off nginx's response buffer for this response alone.
    stream_headers: ClassVar[dict[str, str]] = {
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
    }

    def __init__(self, source: AsyncIterable[bytes], **kwargs: Any) -> None:
        self.check_source(source)
        kwargs.setdefault("content_type", self.stream_content_type)
        self._own = source if isinstance(source, AsyncGenerator) else _iterate(source)
        super().__init__(self._own, **kwargs)
        for name, value in self.stream_headers.items():
            self.headers.setdefault(name, value)

    @classmethod
    def check_source(cls, source: object) -> None:
        """Raise TypeError, with the remedy, for what is no async iterable."""
        if not isinstance(source, AsyncIterable):
            raise TypeError(
                f"{cls.__name__} needs an async iterable, got {type(source).__name__}: write the "
                "generator as `async def` with `yield`, and loop over a queryset with `async for`."
            )

    def put_through(
        self, wrapper: Callable[[AsyncGenerator[Any, None]], AsyncGenerator[Any, None]]
    ) -> None:
        """Send what `wrapper` makes of the body."""
        if self.is_untouched:
            self._own = self._iterator = wrapper(self._own)
        else:
            self._iterator = wrapper(_iterate(self._iterator))

    @property
    def is_untouched(self) -> bool:
        """Return whether no middleware has put its own iterator around the body."""
        return self._iterator is self._own

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Django closes what this returns, and leaves the generators inside to the garbage
        # collector (5.2 even forgets them at shutdown): close ours by name.
        async with aclosing(self._own):
            await release_request_thread()
            if self.is_untouched:
                async for part in self._own:
                    yield part if isinstance(part, bytes) else self.make_bytes(part)
            else:
                async for part in super().__aiter__():
                    yield part


class DownloadResponse(StreamResponse):
    """A response whose body is saved, or shown, under a file name."""

    stream_headers: ClassVar[dict[str, str]] = {
        **StreamResponse.stream_headers,
        "X-Content-Type-Options": "nosniff",
    }

    def __init__(
        self,
        source: AsyncIterable[bytes],
        filename: str,
        *,
        as_attachment: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, **kwargs)
        self.headers["Content-Disposition"] = content_disposition(filename, as_attachment)


class EventStreamResponse(StreamResponse):
    """Server-sent events (WHATWG HTML, section 9.2) from an async iterable of encoded events.

    A comment is sent whenever the source was silent for `KEEPALIVE_SECONDS`, unless the source
    `keeps_alive` itself. Give it `bytes` as `realtime.streaming.sse.encode_sse` makes them.
    """

    stream_content_type = "text/event-stream"
    stream_headers: ClassVar[dict[str, str]] = {
        **StreamResponse.stream_headers,
        # GZipMiddleware leaves a response alone that names an encoding; a compressor would hold
        # events back until its window is full.
        "Content-Encoding": "identity",
    }

    def __init__(
        self, source: AsyncIterable[bytes], *, keeps_alive: bool = False, **kwargs: Any
    ) -> None:
        self.check_source(source)
        if not keeps_alive:
            source = keep_alive(source, settings.KEEPALIVE_SECONDS)
        super().__init__(source, **kwargs)


def keep_alive(source: AsyncIterable[bytes], seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield what `source` yields, and an SSE comment after each silence of `seconds`."""
    enter = RequestVariables().enter
    return chunked(source, _part_or_comment, 0, 0, idle=seconds, enter=enter)


def _part_or_comment(parts: list[bytes]) -> bytes:
    return parts[0] if parts else KEEPALIVE


def content_disposition(name: str, as_attachment: bool) -> str:
    """Return the header's value (RFC 6266).

    The name as it is in `filename*` (RFC 8187), and what is left of it in ASCII for clients that
    can't read that.
    """
    kind = "attachment" if as_attachment else "inline"
    if _PLAIN.fullmatch(name):
        return f'{kind}; filename="{name}"'
    # Not a byte of a header: lone surrogates are what a file name that is not UTF-8 decodes to.
    encoded = quote(name.encode("utf-8", "replace"), safe="!#$&+-.^_`|~")
    fallback = "".join(c if _PLAIN.fullmatch(c) else "_" for c in name)
    return f"{kind}; filename=\"{fallback}\"; filename*=UTF-8''{encoded}"


async def _iterate(source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield what `source` yields; close it too, where that can be."""
    iterator = aiter(source)
    try:
        async for part in iterator:
            yield part
    finally:
        await aclose(iterator)
