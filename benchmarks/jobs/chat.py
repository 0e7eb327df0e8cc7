"""The first token of an answer: what comes on top of the provider's own time.

The provider is a server of our own that speaks OpenAI's protocol and answers at once. Its first
token is the time at which it was written, by the clock that all processes share. So there are two
figures: how much later than from the provider itself the first token comes, and how long it is on
its way from the provider to the client. The SDK alone, in a process without a server, is the
reference for both contestants, who use it.

`python -m benchmarks.jobs.chat upstream PORT` is the provider, and `... sdk PORT COUNT` the SDK.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any, Final

from ..contestants import ROOT, TOKEN, Contestant
from ..download import connect
from ..load import Tally
from ..machine import Load, ServerProcess, free_port
from ..plan import Measurement, Plan
from ..wire import BodyParser, get_request, post_request

TOKENS: Final = 20  # in each answer
WARM_UP: Final = 5  # answers
PAUSE: Final = 0.002  # what a contestant waits while the provider itself is asked
SDK: Final = "SDK alone"
CREATE: Final = "/v1/chat/completions"
ASK: Final = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hello?"}]}'
Times = tuple[float, float]  # seconds to the first token, and of it on its way


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """Ask the provider and the contestant in turn."""
    (other_core,) = os.sched_getaffinity(0)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.jobs.chat", "upstream", str(port)]
    provider = ServerProcess(command, dict(os.environ), port, other_core, ROOT)
    env = {
        "LLM_PROVIDER": "openai",
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
    }
    try:
        provider.wait_until_it_answers()
        with contestant.serving(plan.server_core, env=env) as server:
            headers = next(contestant.headers(TOKEN, 1))
            if not server.offers("/chat?prompt=Hello"):
                return
            asked = get_request(server.host, "/chat?prompt=Hello", headers)
            straight = post_request(f"127.0.0.1:{port}", CREATE, ASK)
            own, theirs, tally = [], [], Tally()
            with (
                connect(port) as to_provider,
                connect(server.process.port) as to_server,
                Load(server.process) as load,
            ):
                for _ in range(WARM_UP + plan.prompts):
                    own.append(ask(to_provider, straight, Tally()))
                    theirs.append(ask(to_server, asked, tally))
        base = median(first for first, _ in own[WARM_UP:])
        cost = load.per(WARM_UP + plan.prompts)
        yield from figures(contestant.label, theirs[WARM_UP:], base, tally, cost)
        if contestant.name == "ours" and plan.is_sdk_measured:  # once in each turn
            alone = by_sdk(port, plan)
            yield from figures(SDK, alone, base, Tally())
            later = median(first for first, _ in theirs[WARM_UP:])
            later -= median(first for first, _ in alone)
            metric = "First token: later than from the SDK alone"
            yield Measurement(metric, contestant.label, later * 1_000, "ms", "less")
    finally:
        provider.stop()


def figures(
    label: str, times: list[Times], base: float, tally: Tally, cost: float | None = None
) -> Iterator[Measurement]:
    """The medians in milliseconds."""
    added = (median(first for first, _ in times) - base) * 1_000
    under_way = median(way for _, way in times) * 1_000
    metric = "First token: later than from the provider itself"
    yield Measurement(metric, label, added, "ms", "less", tally=tally, cost=cost)
    yield Measurement(
        "First token: from the provider to the client", label, under_way, "ms", "less"
    )


def ask(sock: socket.socket, request: bytes, tally: Tally) -> Times:
    """Read a whole answer, from a provider or from a contestant."""
    parser, text, arrived = BodyParser(), b"", 0.0
    started = time.monotonic()
    sock.sendall(request)
    while not parser.ended and (data := sock.recv(65_536)):
        now = time.monotonic()
        text += parser.feed(data)
        if not arrived and b"at " in text:
            arrived = now
    found = tokens_of(text)
    tally.add(Tally(TOKENS, len(found) if parser.ended else min(len(found), TOKENS - 1)))
    if not found:
        raise ValueError(f"No token in {text[:300]!r}")
    return arrived - started, arrived - float(found[0].removeprefix("at "))


def tokens_of(text: bytes) -> list[str]:
    """The tokens in server-sent events, of a provider or of a contestant."""
    tokens: list[str] = []
    for event in text.split(b"\n\n"):
        *_, data = event.split(b"\n")
        if not data.startswith(b"data: {"):
            continue
        found: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
        for choice in found.get("choices", ()):
            found = choice["delta"]
        if token := found.get("token") or found.get("content"):
            tokens.append(token)
    return tokens


def by_sdk(port: int, plan: Plan) -> list[Times]:
    """The SDK's times, on the server's core."""
    count = str(WARM_UP + plan.prompts)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.jobs.chat", "sdk", str(port), count],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {plan.server_core}),
    )
    return [(first, way) for first, way in json.loads(done.stdout)[WARM_UP:]]


async def ask_by_sdk(port: int, count: int) -> list[Times]:
    """Ask as the contestants do, for nobody."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1")
    times: list[Times] = []
    for _ in range(count):
        started, arrived, written = time.monotonic(), 0.0, 0.0
        async with await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hello?"}], stream=True
        ) as stream:
            async for chunk in stream:
                text = chunk.choices[0].delta.content if chunk.choices else None
                if text and not arrived:
                    arrived, written = time.monotonic(), float(text.removeprefix("at "))
        times.append((arrived - started, arrived - written))
        await asyncio.sleep(PAUSE)
    return times


def event(content: str | None, reason: str | None = None) -> bytes:
    """A chunk of the transfer coding with one event of OpenAI's protocol."""
    delta = {"role": "assistant"} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    kind = "chat.completion.chunk"
    data = {"id": "c", "object": kind, "created": 1, "model": "m", "choices": [choice]}
    return in_chunk(b"data: " + json.dumps(data).encode() + b"\n\n")


def in_chunk(data: bytes) -> bytes:
    """The transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests on one connection; each is answered at once."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    role = event(None)
    rest = b"".join(event("word ") for _ in range(TOKENS - 1))
    rest += event("", "stop") + in_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    try:
        while True:
            asked = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, _, length = asked.partition(b"content-length:")
            await reader.readexactly(int(length.split(b"\r\n")[0] or 0))
            writer.write(head + role)
            writer.write(event(f"at {time.monotonic():.7f}"))
            writer.write(rest)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(port: int) -> None:
    """The provider."""
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


def main(what: str, port: str, count: str = "0") -> None:
    """One of the two processes."""
    import uvloop

    if what == "upstream":
        uvloop.run(serve(int(port)))
    else:
        print(json.dumps(uvloop.run(ask_by_sdk(int(port), int(count)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
