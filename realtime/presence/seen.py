"""What the others see of a user who is there."""

import logging
from typing import Any

from ..access.permissions import User
from ..access.user_info import sender_meta
from ..conf import settings
from ..delivery.publish import to_json
from ..events.payload import encode_data
from ..exceptions import DataTooLarge

logger = logging.getLogger("realtime.presence")


def key_of(user: Any) -> str:
    """Return what makes several connections one person; empty for those without a user."""
    return str(user.pk) if user.is_authenticated else ""


async def seen_of(user: User) -> str:
    """Return what `PRESENCE_INFO` has of the user as JSON; empty where the others see nothing."""
    try:
        meta = await sender_meta(user)
        if meta is None:
            return ""
        if not isinstance(meta["sender"], dict):
            raise TypeError(f"it returned {meta['sender']!r:.60}, which is no dict")
        return encode_data(meta["sender"], settings.PRESENCE_INFO_BYTES, to_json)
    except DataTooLarge:
        limit = settings.PRESENCE_INFO_BYTES
        logger.warning(
            "PRESENCE_INFO has over %s bytes (PRESENCE_INFO_BYTES) for user %s, of whom others "
            "see nothing",
            *(limit, user.pk),
        )
    except Exception:
        # Nobody is kept from reading by it.
        logger.warning("PRESENCE_INFO failed; others see nothing of %s", user.pk, exc_info=True)
    return ""
