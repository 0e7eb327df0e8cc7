"""Rows 18 and 20: what production needs, and the mistakes that must not be possible."""

import asyncio

import httpx

from tests.support.attempts import three_tries_of

from .clients import (
    call,
    events_path,
    handshake,
    http,
    is_ok,
    listening,
    new_topic,
    publish,
    raw,
    refused,
    request,
    signed_in,
    websocket,
    within,
)
from .contestants import Server, Site
from .outcomes import row, see
from .test_websockets import EVIL

# -- row 18


@row(18, "The health check answers")
async def test_health(here: Server) -> None:
    is_ok(await call(here, "GET", "/healthz"))


@row(18, "The readiness check says no while Redis is away, and yes again afterwards")
async def test_ready(site: Site) -> None:
    server = site.start()
    is_ok(await call(server, "GET", "/readyz"))
    assert site.valkey is not None
    await asyncio.to_thread(site.valkey.kill)
    answer = await call(server, "GET", "/readyz")
    for _ in range(20):
        if answer.status_code == 503:
            break
        await asyncio.sleep(0.1)
        answer = await call(server, "GET", "/readyz")
    is_ok(answer, 503)
    await asyncio.to_thread(site.valkey.start)
    status = 0
    for _ in range(50):
        if (status := (await call(server, "GET", "/readyz")).status_code) == 200:
            break
        await asyncio.sleep(0.1)
    see(status == 200, "It still said no 5 s after the restart of Redis.")


@row(18, "SIGTERM ends a WebSocket with 1012 or 1001, a stream by its last chunk, and the server")
async def test_end(site: Site) -> None:
    server = site.start()
    topic, alice = new_topic(), server.users["alice"]
    async with (
        websocket(server, f"/ws/topics/{topic}", alice) as socket,
        listening(server, topic) as stream,
    ):
        await publish(server, topic, 1)
        await socket.receive()
        await stream.next()
        ending = asyncio.create_task(asyncio.to_thread(server.terminate))
        code = await socket.closed(8)
        try:
            see(code in (1_001, 1_012), f"The WebSocket was closed with {code}.")
            await stream.rest(8)
        finally:
            ended = await ending
    see(ended, "The server had not ended 8 s later.")


@row(18, "A download that is under way at SIGTERM is finished")
async def test_download_at_the_end(site: Site) -> None:
    server, size, path = site.start(), 0, "/firehose?mb=30"
    is_ok(await call(server, "GET", "/firehose?mb=1", server.users["staff"]))
    ending: asyncio.Task[bool] | None = None
    async with http(server, server.users["staff"]) as client:
        try:
            async with client.stream("GET", path) as response:
                async for piece in response.aiter_raw():
                    size += len(piece)
                    if ending is None:
                        ending = asyncio.create_task(asyncio.to_thread(server.terminate))
                        await asyncio.sleep(0.5)
        except httpx.TransportError:
            pass
    assert ending is not None
    await ending
    see(size == 30 * 2**20, "The download was cut.")


# -- row 20


@row(20, "Every WebSocket that takes the cookie refuses the page of another site")
async def test_origin_of_sockets(here: Server) -> None:
    alice, offered = here.users["alice"], 0
    topic = f"/ws/topics/{new_topic('room')}"
    for path in ("/ws", "/ws/auth/cookie", "/ws/user", topic):
        if await handshake(here, path, alice) == 101:
            offered += 1
            await refused(here, path, alice, origin=EVIL)
    see(offered, "No WebSocket opened.")


@row(20, "A stream refuses the page of another site, though the browser sends the cookie")
async def test_origin_of_streams(here: Server) -> None:
    topic = new_topic("room")
    async with http(here) as client:
        for origin, status in ((here.url, 200), (EVIL, 403)):
            headers = {**signed_in(here.users["alice"]), "Origin": origin}
            async with client.stream("GET", events_path(topic), headers=headers) as response:
                is_ok(response, status)


@row(20, "A POST by the session's cookie alone is refused: another site's page could send it")
async def test_csrf(here: Server) -> None:
    topic, alice = new_topic("room"), here.users["alice"]
    await publish(here, topic, 1)
    headers = {**signed_in(alice), "Origin": EVIL}
    async with http(here) as client:
        answer = await client.post(events_path(topic), content=b"1", headers=headers)
    is_ok(answer, 403)


@row(20, "Requests that never end do not keep others from being answered")
async def test_slow_requests(here: Server) -> None:
    sockets = [raw(here) for _ in range(40)]
    entered = []
    try:
        for context in sockets:
            client = context.__enter__()
            entered.append(context)
            client.sendall(request(here, events_path(new_topic()), {})[:-2])
        for _ in range(3):
            is_ok(await call(here, "GET", "/healthz"))
    finally:
        for context in entered:
            context.__exit__(None, None, None)


@row(20, "A hundred idle streams do not keep a request from being answered within a second")
async def test_idle_streams(here: Server) -> None:
    topic = new_topic()
    async with httpx.AsyncClient(
        base_url=here.url, trust_env=False, limits=httpx.Limits(max_connections=None), timeout=30
    ) as client:
        responses = []
        try:
            for _ in range(100):
                sent = client.build_request("GET", events_path(topic))
                response = await client.send(sent, stream=True)
                responses.append(response)
                is_ok(response)

            async def post() -> None:
                async with (
                    http(here, here.users["alice"]) as publisher,  # to make it is no request
                    within(1, "A request took longer."),
                ):
                    is_ok(await publisher.post(events_path(topic), json=1), 201)

            await three_tries_of(post)
        finally:
            for response in responses:
                await response.aclose()
