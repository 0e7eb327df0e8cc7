"""Under stock Daphne the application works: slower, and without the server's own promises."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import httpx
import httpx_sse
import pytest
import websockets

from ..support.servers import ROOT, TOKENS, environment, free_port, wait_until


@pytest.fixture
def url(site: dict[str, str]) -> Iterator[str]:
    """The site served by the `daphne` command."""
    port = free_port()
    command = [sys.executable, "-m", "daphne", "-p", str(port), "project.asgi:application"]
    # Daphne's own: uvloop under its reactor is this project's.
    env = {**environment(site), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            assert process.poll() is None, "daphne has ended"
            return False

    try:
        wait_until(answers, 30, "daphne answering")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_websockets_and_streams(url: str) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['alice']}"}
    events = f"{url}/topics/room.a/events"
    first = httpx.post(events, json={"n": 1}, headers=headers).json()["id"]

    async def run() -> None:
        base = url.replace("http", "ws")
        async with websockets.connect(f"{base}/ws/echo", proxy=None) as echo:
            await echo.send('{"a": 1}')
            assert json.loads(await echo.recv()) == {"echo": {"a": 1}}
        async with (
            httpx.AsyncClient(headers=headers, trust_env=False) as client,
            websockets.connect(
                f"{base}/ws/topics/room.a?after=0", additional_headers=headers, proxy=None
            ) as topic,
            httpx_sse.aconnect_sse(client, "GET", events, headers={"Last-Event-ID": "0"}) as sse,
        ):
            frame = json.loads(await topic.recv())
            assert (frame["id"], frame["data"]) == (first, {"n": 1})
            await topic.send('{"type": "publish", "data": {"n": 2}}')
            frames = [json.loads(await topic.recv()) for _ in range(2)]
            assert {frame["type"] for frame in frames} == {"published", "event"}
            data = []
            async for event in sse.aiter_sse():
                if event.data:
                    data.append(event.json())
                if len(data) == 2:
                    break
            assert data == [{"n": 1}, {"n": 2}]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{base}/ws/topics/room.a", proxy=None).__aenter__()
        assert refused.value.response.status_code == 403

    asyncio.run(run())
