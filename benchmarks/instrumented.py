"""Our site with switches and counters inside, for measurements that need them in its process.

A settings module. `GET /instrument/limits/off` and `.../on` let the limits count or not, from then
on and for new connections; `GET /instrument/counting/off` and `.../on` the same of all metrics.
So both are measured in one process, whose memory and hash seed are the same. Each request under
`/instrument/` answers with the number of SQL statements so far that name the table of presence.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from django.db.backends.signals import connection_created

from project.settings import *  # noqa: F403

ASGI_APPLICATION = f"{__name__}.application"
PREFIX: Final = "/instrument/"
SERIES: Final = {"Counter": ("inc", "add"), "Gauge": ("inc", "dec", "set", "refresh")} | {
    "Histogram": ("observe",)
}

statements = 0
_usual: Final[dict[tuple[type, str], Any]] = {}


def _count(execute: Any, sql: str, *arguments: Any) -> Any:
    global statements
    statements += "realtime_presence" in sql
    return execute(sql, *arguments)


def _watch(connection: Any, **kwargs: Any) -> None:
    connection.execute_wrappers.append(_count)


def limits(is_on: bool) -> None:
    """Let the limits' settings have their defaults, or be None."""
    from realtime.conf import settings

    settings.reset()
    for name in type(settings).table():
        if not is_on and name.startswith(("RATE_", "MAX_CONNECTIONS_PER_")):
            vars(settings)[name] = None


def counting(is_on: bool) -> None:
    """Let the series count, or have them called and do nothing."""
    from realtime.metrics import series

    for kind, methods in SERIES.items():
        owner = getattr(series, kind)
        for name in methods:
            usual = _usual.setdefault((owner, name), owner.__dict__.get(name))
            if usual is not None:
                setattr(owner, name, usual if is_on else _nothing)


def _nothing(*arguments: Any) -> None:
    """Count nothing."""


SWITCHES: Final[dict[str, Callable[[bool], None]]] = {"limits": limits, "counting": counting}


async def _instrumented(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
        from project.asgi import application as site

        await site(scope, receive, send)
        return
    switch, _, state = scope["path"].removeprefix(PREFIX).partition("/")
    if switch in SWITCHES:
        SWITCHES[switch](state == "on")
    body = json.dumps(statements).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def __getattr__(name: str) -> Any:
    """Return `application`; once it is asked for, statements count."""
    if name != "application":
        raise AttributeError(name)
    connection_created.connect(_watch, dispatch_uid=__name__)
    return _instrumented
