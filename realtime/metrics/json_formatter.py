"""Log lines as JSON: one object a line, whatever a client has put into a message."""

import json
import logging
import math
from datetime import UTC, datetime
from typing import Any, Final

from ..server.access_log import redact

# What every record has; the rest is what `extra` has given it.
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JSONFormatter(logging.Formatter):
    """Write a record as one line of JSON: `time`, `level`, `logger`, `message`, and its `extra`.

    Values of query parameters that are secret, as `token`, are left out of all of it. Of `extra`
    only texts, numbers, booleans and None are written: a request would bring its query.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in STANDARD and name not in fields and _is_plain(value):
                fields[name] = redact(value) if isinstance(value, str) else value
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            fields["exception"] = redact(record.exc_text)
        if record.stack_info:
            fields["stack"] = redact(record.stack_info)
        return json.dumps(fields)


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):  # of a larger one its digits may be too many to write
        return value.bit_length() <= 64
    return value is None or isinstance(value, str)
