"""Access lines and error reports without the secrets that URLs carry."""

import datetime
import logging
import re
import time
import traceback
from typing import Final
from urllib.parse import unquote_plus

from daphne.access import AccessLogGenerator

SECRETS: Final = frozenset(
    {"token", "ticket", "prompt", "password", "secret", "access_token", "api_key"}
)
"""Names of the query parameters whose values are never written to a log."""

REDACTED: Final = "[redacted]"

# A name is tried once, from its first character (the look-behind), and given back by none (`++`):
# a long word without "=" would else be read again from each of its characters.
_PARAMETER: Final = re.compile(r"(?<![^?&;#\s\"'=])([^?&;#\s\"'=]++)=([^&;#\s\"']*+)")


# User and password of a URL, up to the last "@" of its host. A "/" ends each run.
_USERINFO: Final = re.compile(r"(?<=://)[^/?#\s\"']*@")


def redact(text: str) -> str:
    """Return the text with the values of secret query parameters, and URLs' passwords, replaced.

    Wherever they stand in it.

    Names are compared as a server would read them: decoded, and without regard to case.
    """
    if "@" in text:
        text = _USERINFO.sub(f"{REDACTED}@", text)
    if "=" not in text:
        return text
    return _PARAMETER.sub(_redact_match, text)


def _redact_match(match: re.Match[str]) -> str:
    name = match[1]
    # The name may follow other text: "GET /ws/auth/query?token=" has been cut at the "?" already.
    if unquote_plus(name).strip().lower() in SECRETS:
        return f"{name}={REDACTED}"
    return match[0]


class RedactingFilter(logging.Filter):
    """Redacts a record's message and traceback; on the server's own loggers."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            # A formatter uses this text as it is instead of formatting the exception again.
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))[:-1])
        return True


logger = logging.getLogger("realtime.server")
logger.addFilter(RedactingFilter())


class AccessLog(AccessLogGenerator):
    """Daphne's access log; the time is formatted once per second, not once per line."""

    _second = 0
    _stamp = ""

    def write_entry(
        self,
        host: str,
        date: datetime.datetime,
        request: str,
        status: int | None = None,
        length: int | None = None,
        ident: str | None = None,
        user: str | None = None,
    ) -> None:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._stamp = date.strftime("%d/%b/%Y:%H:%M:%S")
        self.stream.write(
            f"{host} {ident or '-'} {user or '-'} [{self._stamp}]"
            f' "{request}" {status or "-"} {length or "-"}\n'
        )
