"""Keys of idempotent publishing: what is published again with the same key is stored once."""

import re
from typing import Final

from ..exceptions import InvalidKey

MAX_KEY_LENGTH: Final = 200
_KEY = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{MAX_KEY_LENGTH}}}")


def validate_key(key: object) -> str:
    """Return a publisher's key, or raise `InvalidKey` with the remedy."""
    if not isinstance(key, str) or _KEY.fullmatch(key) is None:
        raise InvalidKey(
            f"{key!r:.90} can't be an idempotency key: use 1 to {MAX_KEY_LENGTH} characters "
            "without control characters, such as a UUID."
        )
    return key
