"""Messages that a bus drops because they are no others' of this site: counted, and said seldom."""

import logging
import time
from typing import Final

LOG_SECONDS: Final = 60.0  # from one line in the log to the next


class DroppedMessages:
    """Counts what is dropped; the log says so at the first, then once a minute."""

    def __init__(self, logger: logging.Logger, bus: str) -> None:
        self.count = 0
        self._bus = bus
        self._logger = logger
        self._logged: float | None = None  # when, by the monotonic clock

    def add(self, reason: object) -> None:
        """Count one message."""
        self.count += 1
        now = time.monotonic()
        if self._logged is None or now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._logger.warning(
                "Dropped %d messages of the %s so far; of the last one: %s",
                self.count,
                self._bus,
                reason,
            )
