"""Row 3: uvicorn logs whole URLs; what stands for a user is taken out of them."""

import logging
import re

SECRET = re.compile(r"\b(token|ticket)=[^&\s\"]+")


class Redacted(logging.Filter):
    """Blanks tokens and tickets."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                SECRET.sub(r"\1=***", arg) if isinstance(arg, str) else arg for arg in record.args
            )
        return True


def redact() -> None:
    """Do so in both of uvicorn's logs."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(Redacted())
