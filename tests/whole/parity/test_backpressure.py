"""Row 16: clients that do not read."""

import asyncio
import time

from .clients import (
    SMALL,
    Socket,
    Stream,
    by_all_means,
    call,
    events_path,
    http,
    is_ok,
    listening,
    masked_frame,
    new_topic,
    publishing,
    raw,
    raw_websocket,
    read_head,
    request,
    websocket,
    within,
)
from .contestants import Server, Site
from .outcomes import row, see
from .test_downloads import growth_while_stalled

MIB = 2**20
EVENTS, EVENT_BYTES = 300, 60_000  # 17 MiB; the kernel's buffers take up to 4
BOUND = 8 * MIB


@row(16, "A client reads 1 KB of 200 MB and stops: the worker does not grow by 16 MiB")
async def test_firehose(here: Server) -> None:
    growth = await growth_while_stalled(here, "/firehose?mb=200", "/firehose?mb=1")
    see(growth < 16 * MIB, "The worker grew by more than 16 MiB.")


@row(16, "A client that pauses gets the rest, complete")
async def test_pause(here: Server) -> None:
    size, path = 0, "/firehose?mb=20"
    is_ok(await call(here, "GET", "/firehose?mb=1", here.users["staff"]))
    async with (
        http(here, here.users["staff"]) as client,
        client.stream("GET", path) as response,
    ):
        async for piece in response.aiter_raw():
            if not size:
                await asyncio.sleep(0.5)
            size += len(piece)
    see(size == 20 * MIB, "Bytes were missing.")


@row(16, "The firehose is for the staff")
async def test_firehose_refused(here: Server) -> None:
    is_ok(await call(here, "GET", "/firehose?mb=1", here.users["staff"]))
    status = (await call(here, "GET", "/firehose?mb=1")).status_code
    see(status in (401, 403), f"Anybody was answered with {status}.")
    is_ok(await call(here, "GET", "/firehose?mb=1", here.users["alice"]), 403)


async def publish_much(server: Server, topic: str) -> None:
    """More than any socket's buffers take."""
    text = "x" * EVENT_BYTES
    async with publishing(server) as publisher:
        for number in range(EVENTS):
            await publisher.publish(topic, [number, text])


async def growth_while_publishing(server: Server, topic: str) -> int:
    """What the worker grows by at its peak."""
    before = server.forget_peak()
    await publish_much(server, topic)
    return server.peak() - before


async def reads_all(subscriber: Socket | Stream) -> None:
    """A subscriber that keeps up. The publisher, a process, may take a while to begin."""
    for _ in range(EVENTS):
        if isinstance(subscriber, Socket):
            await subscriber.receive(seconds=30)
        else:
            await subscriber.next(seconds=30)


async def growth_with_a_reader(server: Server, topic: str, subscriber: Socket | Stream) -> int:
    """What the worker grows by for one that reads: what it keeps in memory of its own accord."""
    reading = asyncio.create_task(reads_all(subscriber))
    try:
        growth = await growth_while_publishing(server, topic)
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return growth


@row(16, "A WebSocket that reads nothing of 17 MB of events costs the worker less than 8 MiB")
async def test_stalled_websocket(site: Site) -> None:
    server = site.start()
    alice, topic = server.users["alice"], new_topic("room")
    path = f"/ws/topics/{topic}"
    async with websocket(server, path, alice) as socket:
        usual = await growth_with_a_reader(server, topic, socket)
    with raw_websocket(server, path, alice, SMALL):
        growth = await growth_while_publishing(server, topic)
        see(growth < usual + BOUND, "The worker grew by more than 8 MiB.")


@row(16, "A stream that reads nothing of 17 MB of events costs the worker less than 8 MiB")
async def test_stalled_stream(site: Site) -> None:
    server = site.start()
    alice, topic = server.users["alice"], new_topic("room")
    async with listening(server, topic, alice) as stream:
        usual = await growth_with_a_reader(server, topic, stream)
    with raw(server, SMALL) as client:
        client.sendall(request(server, events_path(topic), by_all_means(alice)))
        status, _ = await asyncio.to_thread(read_head, client)
        see(status == 200, f"The answer was {status}.")
        growth = await growth_while_publishing(server, topic)
        see(growth < usual + BOUND, "The worker grew by more than 8 MiB.")


@row(16, "Subscribers that read nothing do not hold up those who read")
async def test_neighbours(there: Server) -> None:
    topic, alice = new_topic("room"), there.users["alice"]
    path = f"/ws/topics/{topic}"
    async with websocket(there, path, alice) as socket, listening(there, topic, alice) as stream:
        with raw_websocket(there, path, alice, SMALL), raw(there, SMALL) as stalled:
            stalled.sendall(request(there, events_path(topic), by_all_means(alice)))
            await asyncio.to_thread(read_head, stalled)
            work = asyncio.create_task(publish_much(there, topic))
            try:
                for number in range(EVENTS):
                    frame = await socket.receive()
                    see(frame["data"][0] == number, "A WebSocket missed an event.")
                    event = await stream.next()
                    see(event.json[0] == number, "A stream missed an event.")
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)


@row(16, "A stream that pauses for 1,500 events gets all of them, once")
async def test_slow_stream(here: Server) -> None:
    topic, count = new_topic(), 1_500
    text = "x" * 12_000

    async def publish_part(first: int) -> None:
        async with publishing(here) as publisher:
            for number in range(first, count, 8):
                await publisher.publish(topic, [number, text])

    found: list[int] = []
    last, paused = None, False
    # A busy machine takes half a minute to publish them.
    async with http(here, buffer=65_536) as client, within(90, "It came to a standstill."):
        while len(found) < count:  # one whose stream is ended comes back, as a browser does
            headers = {} if last is None else {"Last-Event-ID": last}
            path = events_path(topic)
            async with client.stream("GET", path, headers=headers) as response:
                stream = Stream(response)
                if not paused:
                    paused = True
                    await asyncio.gather(*[publish_part(number) for number in range(8)])
                while len(found) < count and (event := await stream.next_or_end()):
                    see(event.event != "reset", "It was told that events are gone.")
                    found.append(event.json[0])
                    last = event.id
            see(len(found) == count or last, "The stream ended, and could not be resumed.")
    found.sort()
    see(found == list(range(count)), "Events were missing or twice.")


@row(16, "A client that sends and never reads its echo is not read any more")
async def test_flood(here: Server) -> None:
    async with websocket(here, "/ws/echo/text"):
        pass
    before = here.forget_peak()
    frame = masked_frame(1, b"x" * 60_000)
    with raw_websocket(here, "/ws/echo/text", None, SMALL) as client:
        client.setblocking(False)
        sent, stalled_since = 0, time.monotonic()
        rest = frame
        while sent < 64 * MIB and time.monotonic() - stalled_since < 1.0:
            try:
                done = client.send(rest)
            except BlockingIOError:
                await asyncio.sleep(0.01)
                continue
            except ConnectionError:
                break
            sent, stalled_since = sent + done, time.monotonic()
            rest = rest[done:] or frame
        see(here.peak() - before < BOUND * 2, "The worker grew by more than 16 MiB.")
    see(sent < 64 * MIB, "All of it was read.")
