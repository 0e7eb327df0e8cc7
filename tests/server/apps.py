"""A small ASGI application, without Django, that shows what the server does.

Paths are commands. What an application noticed is kept in `EVENTS` and told by `/events`.
"""

import asyncio
import gc
import json
import os
import resource
import threading
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs

from asgiref.sync import ThreadSensitiveContext, sync_to_async

EVENTS: list[str] = []
LEFT: list[asyncio.Task[Any]] = []  # that an application has left behind
LANES: list[Any] = []
RUNNING: list[str] = []
BLOCK = b"x" * 65_536
Scope = dict[str, Any]


async def application(scope: Scope, receive: Any, send: Any) -> None:
    """Dispatch to `http_NAME` or `ws_NAME` by the path's first part."""
    if scope["type"] not in ("http", "websocket"):
        raise ValueError(scope["type"])
    prefix = "http" if scope["type"] == "http" else "ws"
    name = scope["path"].removeprefix(scope["root_path"]).strip("/").split("/")[0] or "hello"
    scope["options"] = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
    RUNNING.append(name)
    try:
        await globals()[f"{prefix}_{name}"](scope, receive, send)
    finally:
        RUNNING.remove(name)


def note(line: str) -> None:
    """Write a line that is there when the process has ended."""
    with open(os.environ["TEST_LOG"], "a") as log:
        log.write(f"{line}\n")


async def respond(send: Any, body: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def start(send: Any, content_type: bytes = b"application/octet-stream") -> None:
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def body(send: Any, data: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def read(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            EVENTS.append("disconnect while reading")
            return b"".join(parts)
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


# HTTP


async def http_threads(scope: Scope, receive: Any, send: Any) -> None:
    """Which thread synchronous code runs in, twice, as a framework with its own context asks."""
    async with ThreadSensitiveContext():
        names = [await sync_to_async(_slow_name)() for _ in range(2)]
    await respond(send, " ".join(names).encode())


def _slow_name() -> str:
    time.sleep(0.02)
    return threading.current_thread().name


async def http_hello(scope: Scope, receive: Any, send: Any) -> None:
    await respond(send, b"hello")


async def http_scope(scope: Scope, receive: Any, send: Any) -> None:
    plain = {k: v for k, v in scope.items() if k not in ("extensions", "headers", "options")}
    plain["extensions"] = sorted(scope["extensions"])
    plain["headers"] = [[k.decode("latin1"), v.decode("latin1")] for k, v in scope["headers"]]
    for key in ("raw_path", "query_string"):
        plain[key] = plain[key].decode()
    await respond(send, json.dumps(plain).encode())


async def http_echo(scope: Scope, receive: Any, send: Any) -> None:
    await respond(send, await read(receive))


async def http_length(scope: Scope, receive: Any, send: Any) -> None:
    await respond(send, b"%d" % len(await read(receive)))


async def http_parts(scope: Scope, receive: Any, send: Any) -> None:
    """Answers with the parts in which the body has come."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message["body"])
        more = message["more_body"]
    await respond(send, b" ".join(parts))


async def http_ignore(scope: Scope, receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await respond(send, b"ignored")


async def http_slowread(scope: Scope, receive: Any, send: Any) -> None:
    """Reads one part of the body, then waits."""
    message = await receive()
    EVENTS.append(f"part {len(message['body'])}")
    await asyncio.sleep(float(scope["options"].get("wait", "60")))
    await respond(send, b"%d" % (len(message["body"]) + len(await read(receive))))


async def http_slow(scope: Scope, receive: Any, send: Any) -> None:
    EVENTS.append("slow started")
    try:
        await asyncio.sleep(float(scope["options"].get("wait", "60")))
        await respond(send, b"slow")
    finally:
        EVENTS.append("slow finally")


async def http_block(scope: Scope, receive: Any, send: Any) -> None:
    """Hold the event loop."""
    time.sleep(float(scope["options"].get("seconds", 60)))
    await respond(send, b"blocked")


async def http_large(scope: Scope, receive: Any, send: Any) -> None:
    """Send 60 kB at once."""
    await respond(send, b"x" * 60_000)


async def http_firehose(scope: Scope, receive: Any, send: Any) -> None:
    """Never suspends by itself."""
    await start(send)
    sent = 0
    try:
        while sent < int(scope["options"].get("mb", "1000")) * 16:
            await body(send, BLOCK)
            sent += 1
        await body(send, b"", more=False)
    finally:
        EVENTS.append("firehose finally")


async def http_tiny(scope: Scope, receive: Any, send: Any) -> None:
    """Endless small chunks, never suspends by itself."""
    await start(send)
    try:
        while True:
            await body(send, b"tick\n")
    finally:
        EVENTS.append("tiny finally")


async def http_sse(scope: Scope, receive: Any, send: Any) -> None:
    """An idle event stream that ends on disconnect."""
    await start(send, b"text/event-stream")
    await body(send, b": hi\n\n")
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
        EVENTS.append("sse disconnect")
        await asyncio.sleep(float(scope["options"].get("linger", "0")))
    finally:
        EVENTS.append("sse finally")


async def http_deaf(scope: Scope, receive: Any, send: Any) -> None:
    """An event stream that never looks at receive()."""
    await start(send, b"text/event-stream")
    await body(send, b": hi\n\n")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        EVENTS.append("deaf finally")


async def http_slowstream(scope: Scope, receive: Any, send: Any) -> None:
    """An event stream that takes its time to begin, and has no event."""
    await asyncio.sleep(float(scope["options"]["wait"]))
    await start(send, b"text/event-stream")
    await asyncio.sleep(60)


async def http_handler(scope: Scope, receive: Any, send: Any) -> None:
    """Wait for two tasks, as Django's handler does; `view` sends for ever, or never with `silent`.

    It cancels the view after a disconnect, and leaves it behind when it is itself cancelled before.
    With `leaves` it always leaves it behind.
    """

    async def view() -> None:
        try:
            await start(send, b"text/event-stream")
            while True:
                if "silent" not in scope["options"]:
                    await body(send, b": hi\n\n")
                await asyncio.sleep(0.02)
        finally:
            EVENTS.append("view ended")

    await read(receive)
    tasks = [asyncio.create_task(receive()), asyncio.create_task(view())]
    LEFT.extend(tasks)
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if "leaves" not in scope["options"]:
        tasks[1].cancel()
        await asyncio.wait(tasks[1:])


async def http_clock(scope: Scope, receive: Any, send: Any) -> None:
    """An event stream that never looks at receive(), and whose source says when it is started."""
    try:
        await start(send, b"text/event-stream")
        while True:
            EVENTS.append("clock ticked")
            await body(send, b"data: tick\n\n")
            await asyncio.sleep(0.01)
    finally:
        EVENTS.append("clock finally")


async def http_halfevent(scope: Scope, receive: Any, send: Any) -> None:
    """Stops for a while in the middle of an event."""
    await start(send, b"text/event-stream")
    await body(send, b"data: 1\n")
    await asyncio.sleep(0.5)
    await body(send, b"data: 2\n\n")
    await asyncio.sleep(60)


async def _agen() -> Any:
    try:
        yield b"data: 1\n\n"
        await asyncio.sleep(60)
        yield b"data: 2\n\n"
    finally:
        await asyncio.sleep(0)
        note("agen finally")


async def http_background(scope: Scope, receive: Any, send: Any) -> None:
    """Leave a task behind that iterates a generator, until it is cancelled."""

    async def waiting() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            note("generator finally")

    async def read_all() -> None:
        try:
            async for _ in waiting():
                await respond(send, b"begun")
        finally:
            note("task finally")

    globals()["_left"] = asyncio.create_task(read_all())
    await asyncio.sleep(0.01)


async def http_agen(scope: Scope, receive: Any, send: Any) -> None:
    """A generator kept alive by somebody else, suspended outside of the cancelled task."""
    generator = _agen()
    EVENTS.append("agen started")
    globals()["_kept"] = generator
    await start(send)
    await body(send, await generator.__anext__())
    try:
        await asyncio.sleep(60)
    finally:
        note("agen task finally")


async def http_error(scope: Scope, receive: Any, send: Any) -> None:
    raise RuntimeError("boom at /ws?token=verysecret&x=1")


async def http_stray(scope: Scope, receive: Any, send: Any) -> None:
    raise asyncio.CancelledError("stray")  # as of something that was cancelled elsewhere


async def http_latererror(scope: Scope, receive: Any, send: Any) -> None:
    await start(send)
    await body(send, b"begun")
    raise RuntimeError("late")


async def http_silent(scope: Scope, receive: Any, send: Any) -> None:
    """Returns without a response."""


async def http_unfinished(scope: Scope, receive: Any, send: Any) -> None:
    """Returns in the middle of its response."""
    await start(send)
    await body(send, b"begun")


async def http_text(scope: Scope, receive: Any, send: Any) -> None:
    """Sends a body that is no bytes."""
    await respond(send, "text")  # type: ignore[arg-type]


async def http_twolengths(scope: Scope, receive: Any, send: Any) -> None:
    await respond(send, b"a", headers=[(b"content-length", b"1")] * 2)


async def http_badheader(scope: Scope, receive: Any, send: Any) -> None:
    await respond(send, b"", headers=[(b"x-evil", b"a\r\nset-cookie: b=1")])


async def http_lying(scope: Scope, receive: Any, send: Any) -> None:
    """Content-Length of 10, another body."""
    size = int(scope["options"]["size"])
    await respond(send, b"z" * size, headers=[(b"content-length", b"10")])


async def http_status(scope: Scope, receive: Any, send: Any) -> None:
    status = int(scope["options"]["status"])
    await respond(send, b"" if status in (204, 304) else b"body", status)


async def http_chunks(scope: Scope, receive: Any, send: Any) -> None:
    await start(send)
    for part in (b"one", b"", b"two"):
        await body(send, part)
    await body(send, b"three", more=False)


async def http_late(scope: Scope, receive: Any, send: Any) -> None:
    """Begins its answer at once, and its body when the test's next request says so."""
    if scope["query_string"] == b"go":
        late.set()
        await respond(send, b"gone")
        return
    late.clear()
    await start(send, b"text/event-stream")
    await late.wait()
    await body(send, b"data: 1\n\n")
    await body(send, b"", more=False)


late = asyncio.Event()


async def http_reset(scope: Scope, receive: Any, send: Any) -> None:
    """Forget the events once nothing else is running; until then 503."""
    if len(RUNNING) > 1:
        await respond(send, " ".join(RUNNING).encode(), 503)
    else:
        EVENTS.clear()
        await respond(send, b"")


async def http_events(scope: Scope, receive: Any, send: Any) -> None:
    data = {
        "events": EVENTS,
        "running": RUNNING,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "draining": scope["extensions"]["realtime.server"]["draining"],
        "pid": os.getpid(),
        "is_collecting": gc.isenabled(),
    }
    await respond(send, json.dumps(data).encode())


def framing_of(lane: Any) -> str:
    return str(lane.framing and lane.framing.__name__)


async def http_lane(scope: Scope, receive: Any, send: Any) -> None:
    """An event stream with an open lane. `arm=other` breaks the promise."""
    lane = scope["extensions"]["realtime.lane"]["lane"]
    options = scope["options"]
    headers = [(b"content-type", b"text/event-stream")]
    if "encoding" in options:
        headers.append((b"content-encoding", options["encoding"].encode()))
    if "length" in options:
        headers.append((b"content-length", options["length"].encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    first = b": hi\n\n"
    lane.arm(first)
    await body(send, bytes(bytearray(first)) if options.get("arm") == "other" else first)
    LANES.append(lane)
    EVENTS.append(f"lane {framing_of(lane)}")
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        EVENTS.append(f"lane after {framing_of(lane)} {lane.try_write(b'x')}")
        LANES.remove(lane)


async def http_broadcast(scope: Scope, receive: Any, send: Any) -> None:
    """Writes `size` bytes `times` times to all lanes; tells how many were taken. With `together`,
    by the group of each lane's kind."""
    size, times = int(scope["options"]["size"]), int(scope["options"].get("times", "1"))
    together = "together" in scope["options"]
    data = b"data: " + b"d" * size + b"\n\n"
    taken = 0
    for _ in range(times):
        for lane in list(LANES):
            payload = data if lane.framing is None else lane.framing(data)
            if together:
                group = lane.kind()
                index = group.add(lane)
                taken += 1 - len(group.write(payload, index, index + 1))
                group.remove(index)
            else:
                taken += lane.try_write(payload)
    await respond(send, b"%d" % taken)


# WebSockets


async def ws_echo(scope: Scope, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            EVENTS.append(f"disconnect {message['code']} {message['reason']}".strip())
            return
        message["type"] = "websocket.send"
        await send(message)


async def ws_accept(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    chosen = scope["subprotocols"][-1] if scope["subprotocols"] else None
    headers = [(b"x-extra", b"yes"), (b"set-cookie", b"a=b")]
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})
    await receive()


async def ws_hang(scope: Scope, receive: Any, send: Any) -> None:
    """Never answers the handshake."""
    await receive()
    EVENTS.append(f"hang {(await receive())['type']}")


async def ws_deny(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b'{"a":', "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"1}"})
    EVENTS.append(f"denied {(await receive())['type']}")


async def ws_reject(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4401})


async def ws_close(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    options = scope["options"]
    message = {"type": "websocket.close", "code": json.loads(options.get("code", "1000"))}
    await send({**message, "reason": json.loads(options.get("reason", '""'))})
    await send({"type": "websocket.send", "text": "after the close"})
    EVENTS.append(f"closed {(await receive())['code']}")


async def ws_error(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    if "accept" in scope["options"]:
        await send({"type": "websocket.accept"})
    raise RuntimeError("ws boom")


async def ws_stray(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    if "accept" in scope["options"]:
        await send({"type": "websocket.accept"})
    raise asyncio.CancelledError("stray")


async def ws_return(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def ws_flood(scope: Scope, receive: Any, send: Any) -> None:
    """Sends without end, never suspends by itself."""
    await receive()
    await send({"type": "websocket.accept"})
    data = b"y" * int(scope["options"].get("size", "1000"))
    try:
        while not scope["extensions"]["realtime.disconnect"]["event"].is_set():
            await send({"type": "websocket.send", "bytes": data})
    finally:
        EVENTS.append("flood finally")


async def ws_slow(scope: Scope, receive: Any, send: Any) -> None:
    """Does not receive for a while, or until the peer has gone."""
    await receive()
    await send({"type": "websocket.accept"})
    if "gone" in scope["options"]:
        await scope["extensions"]["realtime.disconnect"]["event"].wait()
        EVENTS.append("gone is set")
    else:
        await asyncio.sleep(float(scope["options"].get("wait", "1")))
    count = 0
    while (message := await receive())["type"] == "websocket.receive":
        count += 1
    EVENTS.append(f"slow got {count} then {message['code']}")


async def ws_busy(scope: Scope, receive: Any, send: Any) -> None:
    """Awaits nothing but messages, and notes how often others had a turn meanwhile."""
    await receive()
    await send({"type": "websocket.accept"})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    message, counting = await receive(), asyncio.ensure_future(count())
    while message["type"] == "websocket.receive" and message["text"] != "last":
        message = await receive()
    counting.cancel()
    EVENTS.extend((f"{turns}", "busy"))


async def ws_lane(scope: Scope, receive: Any, send: Any) -> None:
    lane = scope["extensions"]["realtime.lane"]["lane"]
    await receive()
    before = framing_of(lane)
    await send({"type": "websocket.accept"})
    LANES.append(lane)
    EVENTS.append(f"lane {before} {framing_of(lane)}")
    try:
        while (await receive())["type"] == "websocket.receive":
            pass
    finally:
        EVENTS.append(f"lane after {framing_of(lane)} {lane.try_write(b'x')}")
        LANES.remove(lane)


async def ws_farewell(scope: Scope, receive: Any, send: Any) -> None:
    """Takes its time when it is told to leave."""
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    await asyncio.sleep(0.2)
    note(f"farewell {message['type']} {message['code']}")
