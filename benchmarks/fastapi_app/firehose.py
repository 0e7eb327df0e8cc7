"""Row 16: bytes as fast as the client reads."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from .auth import SignedIn

MIB = 2**20
PIECE = b"\0" * 65_536

router = APIRouter()


@router.get("/firehose")
async def firehose(
    user: SignedIn, mb: Annotated[int, Query(ge=1, le=1_000_000)]
) -> StreamingResponse:
    """So many MiB, for staff."""
    if not user.is_staff:
        raise HTTPException(403, "The firehose is for staff.")
    return StreamingResponse(megabytes(mb), media_type="application/octet-stream")


async def megabytes(count: int) -> AsyncIterator[bytes]:
    """In pieces; each waits until the one before is on its way."""
    for _ in range(count * MIB // len(PIECE)):
        yield PIECE
