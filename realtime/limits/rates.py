"""The rate for an identity: that of the setting, or what the site's `RATE_FOR` returns."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from ..access.identity import Identity
from ..conf import settings
from ..conf.rate import Rate, parse_rate

logger = logging.getLogger("realtime.limits")

RateFor: TypeAlias = Callable[[Identity, str], Awaitable[str | None]]


_failed: Final[set[object]] = set()  # hooks whose failure was told


async def rate_for(identity: Identity, action: str) -> Rate | None:
    """Return the rate at which `identity` may do something, None for no limit.

    `action` is the name of a setting, as `RATE_PUBLISHES`, whose rate is returned where the site's
    hook returns None, or fails.
    """
    default: Rate | None = getattr(settings, action)
    hook: RateFor | None = settings.RATE_FOR
    if hook is None:
        return default
    try:
        text = await hook(identity, action)
        return default if text is None else parse_rate(text)
    except Exception:
        if hook not in _failed:
            _failed.add(hook)
            logger.exception("RATE_FOR failed, and %s holds; it is not logged again", action)
        return default
