"""A server that speaks the providers' streaming protocols, as a test tells it to."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Part: TypeAlias = bytes | float  # bytes to send, or seconds to wait


@dataclass
class Request:
    """What came, and what became of its connection."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed_at: float | None = None
    written_at: list[float] = field(default_factory=list)


class Upstream:
    """HTTP/1.1 with chunked bodies; each request is answered with `status` and `parts`."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.parts: list[Part] = []
        self.cut = False  # close without the last chunk
        self.hangs = False  # after the parts, until the client closes
        self.requests: list[Request] = []
        self.connections: set[asyncio.Task[Any]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Requests whose client has not closed the connection yet."""
        return sum(request.closed_at is None for request in self.requests)

    def respond(self, *parts: Part, status: int = 200, **more: Any) -> None:
        """Answer like this from now on."""
        self.parts, self.status = list(parts), status
        self.headers = more.pop("headers", {})
        self.cut, self.hangs = more.pop("cut", False), more.pop("hangs", False)
        assert not more

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; one request."""
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            await self._read(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.connections.discard(task)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        request = Request(head[0].split()[1], headers, json.loads(body))
        self.requests.append(request)
        answering = asyncio.create_task(self._answer(writer, request))
        try:
            while await reader.read(1024):  # nothing more comes; its end is what we wait for
                pass
        except ConnectionError:
            pass
        request.closed_at = asyncio.get_running_loop().time()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, writer: asyncio.StreamWriter, request: Request) -> None:
        kind = "application/json" if self.status >= 400 else "text/event-stream"
        head = {"content-type": kind, "transfer-encoding": "chunked", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"HTTP/1.1 {self.status} Status\r\n{lines}\r\n".encode())
        for part in self.parts:
            if isinstance(part, float):
                await writer.drain()
                await asyncio.sleep(part)
            elif part:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                request.written_at.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.Event().wait()
        if not self.cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """An upstream on a free port."""
    fake = Upstream()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        async with asyncio.timeout(20):
            while fake.open:
                await asyncio.sleep(0.01)
            if connections := list(fake.connections):  # about to end, or nothing was asked on them
                await asyncio.wait(connections, timeout=1)
                for connection in connections:
                    connection.cancel()
                await asyncio.wait(connections)


def sse(data: Any, event: str | None = None) -> bytes:
    """One event as the providers write them."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


def anthropic_events(
    texts: Iterable[str], stop_reason: str | None = "end_turn", error: dict[str, str] | None = None
) -> list[bytes]:
    """Anthropic's protocol: each event by its type."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
    ]
    for text in texts:
        delta = {"type": "text_delta", "text": text}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    if error is not None:
        events.append({"type": "error", "error": error})
    elif stop_reason is not None:
        stop = {"stop_reason": stop_reason, "stop_sequence": None}
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
    return [sse(event, event["type"]) for event in events]


def openai_events(
    texts: Iterable[str],
    stop_reason: str | None = "stop",
    error: dict[str, str] | None = None,
    done: bool = True,
) -> list[bytes]:
    """OpenAI's protocol, as vLLM, Ollama and llama.cpp speak it too."""

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "test",
            "choices": [choice],
        }

    events: list[Any] = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": text}) for text in texts]
    if error is not None:
        events.append({"error": error})
    elif stop_reason is not None:
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        events += [chunk({}, stop_reason), {**chunk({}), "choices": [], "usage": usage}]
        if done:
            events.append("[DONE]")
    return [sse(event) for event in events]


EVENTS: dict[str, Callable[..., list[bytes]]] = {
    "anthropic": anthropic_events,
    "openai": openai_events,
}


def torn(parts: Iterable[bytes], seed: int) -> list[bytes]:
    """The same bytes in chunks that end anywhere, inside of UTF-8 sequences too."""
    whole, chance, found = b"".join(parts), random.Random(seed), []
    while whole:
        size = chance.choice((1, 2, 3, 7, 40, 500))
        found.append(whole[:size])
        whole = whole[size:]
    return found
