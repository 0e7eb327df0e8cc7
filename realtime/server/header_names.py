"""Names of headers: tokens (RFC 9110, section 5.6.2), compared in lower case."""

import re
from typing import Final

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

MAX_KNOWN: Final = 1_024
MAX_KNOWN_BYTES: Final = 64
"""How many names are kept, and how long they may be: a client must not fill the memory."""

known: Final[dict[bytes, bytes]] = {}
"""Names as they were sent -> in lower case; valid ones only."""


def lower(raw: bytes) -> bytes:
    """Return the name in lower case, or nothing for what is no name. Check `known` before."""
    if not TOKEN.fullmatch(raw):
        return b""
    name = raw.lower()
    if len(known) < MAX_KNOWN and len(raw) <= MAX_KNOWN_BYTES:
        known[raw] = name
    return name
