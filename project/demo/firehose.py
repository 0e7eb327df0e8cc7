"""Row 16: as many bytes as asked for, as fast as the client reads, and no faster."""

from collections.abc import AsyncIterator
from typing import Final

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from realtime import NotAllowed, StreamResponse, error_response, json_errors, require_user

PIECE: Final = b"\0" * 65_536
PIECES_PER_MB: Final = 16
MAX_MB: Final = 1_000_000


@json_errors("GET")
async def firehose(request: HttpRequest) -> HttpResponseBase:
    """`GET /firehose?mb=N`: staff only."""
    user = await require_user(request)
    if not user.is_staff:
        raise NotAllowed("The firehose is for staff.")
    mb = request.GET.get("mb", "")
    is_number = mb.isascii() and mb.isdigit() and len(mb) <= len(str(MAX_MB))
    if not is_number or not 0 < int(mb) <= MAX_MB:
        return error_response(
            400, f"mb={mb[:40]!r}: a number of megabytes up to {MAX_MB}, as mb=100."
        )
    return StreamResponse(pieces(int(mb) * PIECES_PER_MB))


async def pieces(count: int) -> AsyncIterator[bytes]:
    """The same piece again and again. Each `yield` waits until the client has room for it."""
    for _ in range(count):
        yield PIECE
