"""An ASGI application that sends files."""

import asyncio
from typing import Any

from . import apps
from .apps import EVENTS, Scope, body, respond


async def application(scope: Scope, receive: Any, send: Any) -> None:
    """The other applications' dispatcher finds these."""
    await apps.application(scope, receive, send)


async def http_file(scope: Scope, receive: Any, send: Any) -> None:
    options = scope["options"]
    offset, count = int(options.get("offset", 0)), int(options["count"])
    headers = []
    if options["framing"] == "length":
        headers.append((b"content-length", str(count + 2).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await body(send, b"<")
    with open(options["path"], "rb") as file:
        try:
            if options["way"] == "part":
                part = scope["extensions"]["realtime.sendfile"]["part"]
                await body(send, part(file.fileno(), offset, count))
            else:
                kind = "http.response.zerocopysend"
                span = {"file": file, "offset": offset, "count": count, "more_body": True}
                await send({"type": kind, **span})
            EVENTS.append("sent")
        except asyncio.CancelledError:
            EVENTS.append("cancelled")
            raise
    await body(send, b">", more=False)


async def http_rest(scope: Scope, receive: Any, send: Any) -> None:
    with open(scope["options"]["path"], "rb", buffering=0) as file:
        file.seek(int(scope["options"]["seek"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.zerocopysend", "file": file})


async def http_toolong(scope: Scope, receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    with open(scope["options"]["path"], "rb") as file:
        await body(send, b"")
        await send({"type": "http.response.zerocopysend", "file": file, "count": 11})


async def http_extensions(scope: Scope, receive: Any, send: Any) -> None:
    await respond(send, " ".join(scope["extensions"]).encode())


for name, view in list(globals().items()):
    if name.startswith("http_"):
        setattr(apps, name, view)
