"""What runs beside the checks: a language model, and clients that wait for what comes rarely."""

import asyncio
import json
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from tests.llm.upstream import Part, Request, Upstream, openai_events

from .clients import Stream, call, is_heartbeat, is_ok, stream, websocket, within
from .contestants import Server, Site
from .outcomes import Seen, see

KEEPALIVE_WITHIN: Final = 19.0  # the chapter: every 15 s; more, as the machine may stand still
FIRST_MESSAGE_WITHIN: Final = 17.0
HEARTBEAT_WITHIN: Final = 33.0  # the chapter: every 30 s
ORPHANED_WITHIN: Final = 20.0
QUIET: Final = 3.0  # what comes before is a greeting


class Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it there, and wait."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin it there."""

        async def begin() -> asyncio.Task[Any]:
            return asyncio.create_task(work)

        return self.run(begin())  # type: ignore[no-any-return]

    def close(self) -> None:
        """Cancel what is left, and end the thread."""

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_asyncgens()

        self.run(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class _Fake(Upstream):
    """The tests' own provider; its connections can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await super().serve(reader, writer)


class Model:
    """A provider that speaks OpenAI's streaming protocol, and answers as a check tells it to."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._fake = _Fake()
        self._server = background.run(self._serve())

    async def _serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._fake.serve, "127.0.0.1", 0)
        self._fake.port = server.sockets[0].getsockname()[1]
        return server

    @property
    def url(self) -> str:
        return self._fake.url

    @property
    def requests(self) -> list[Request]:
        """What came since the last `answer`."""
        return self._fake.requests

    def answer(
        self, *texts: str, finish: bool = True, pause: float = 0.0, cut: bool = False
    ) -> None:
        """Answer with these tokens from now on; hang after them unless finished or cut."""
        parts: list[Part] = []
        for event in openai_events(texts, "stop" if finish else None):
            parts += [event, pause] if pause else [event]
        self._fake.requests.clear()
        self._fake.respond(*parts, hangs=not finish and not cut, cut=cut)

    def refuse(self) -> None:
        """Answer with an error from now on."""
        self._fake.requests.clear()
        error = {"error": {"message": "No.", "type": "invalid_request_error"}}
        self._fake.respond(json.dumps(error).encode(), status=400)

    def release(self) -> None:
        """Cut what still hangs: who keeps it open would keep it for the checks that follow."""

        async def abort() -> None:
            for writer in self._fake.writers:
                writer.transport.abort()
            self._fake.writers.clear()

        self._background.run(abort())

    def close(self) -> None:
        """Listen no more."""

        async def close() -> None:
            self._server.close()
            await self._server.wait_closed()

        self._background.run(close())


async def begin_answer(server: Server) -> str:
    """Begin an answer that survives; where its events are."""
    answer = await call(server, "POST", "/chat", server.users["alice"], json={"prompt": "Hello"})
    is_ok(answer, 201)
    return str(answer.json()["events"])


class Vigil:
    """Clients that begin to wait when a server starts, so that no check has to wait so long."""

    def __init__(self, background: Background, server: Server, other: Site, model: Model) -> None:
        self._background = background
        self._server = server
        self._other = other
        self._model = model
        self._waits = {
            "orphan": background.spawn(self._orphan()),
            "keepalive": background.spawn(self._keepalive()),
            "heartbeat": background.spawn(self._heartbeat()),
            "first message": background.spawn(self._first_message()),
        }

    def stop(self) -> None:
        """Wait for nothing more. The server is gone by now."""

        async def cancel() -> None:
            for task in self._waits.values():
                task.cancel()
            await asyncio.gather(*self._waits.values(), return_exceptions=True)

        self._background.run(cancel())

    async def outcome(self, name: str) -> None:
        """What became of one of them."""
        task = self._waits[name]
        while not task.done():
            await asyncio.sleep(0.05)
        task.result()

    async def _orphan(self) -> None:
        site, model = self._other, self._model
        alice = site.users["alice"]
        model.answer("One", finish=False)
        server = await asyncio.to_thread(site.start)
        path = await begin_answer(server)
        async with stream(server, path, alice) as events:
            see((await events.next()).json == {"token": "One"}, "Another token came.")
        await asyncio.to_thread(server.kill)
        server = await asyncio.to_thread(site.start)
        async with stream(server, path, alice) as events:
            found = [await events.next(ORPHANED_WITHIN)]
            while found[-1].event is None:
                found.append(await events.next(ORPHANED_WITHIN))
        see(found[0].json == {"token": "One"}, "What had been answered was lost.")
        see(found[-1].event == "error", "It did not end with an error.")

    async def _keepalive(self) -> None:
        async with stream(self._server, "/topics/public.vigil/events") as events:
            await _comment(events)

    async def _heartbeat(self) -> None:
        otherwise = f"No heartbeat came within {HEARTBEAT_WITHIN:g} s."
        async with (
            websocket(self._server, "/ws/user", self._server.users["bob"]) as socket,
            within(HEARTBEAT_WITHIN, otherwise),
        ):
            while not is_heartbeat(await socket.receive_raw(HEARTBEAT_WITHIN + 1)):
                pass

    async def _first_message(self) -> None:
        async with websocket(self._server, "/ws/auth/message") as socket:
            code = await socket.closed(FIRST_MESSAGE_WITHIN)
        if not 4_000 <= code < 5_000:
            raise Seen(f"The silent socket was closed with {code}.")


async def _comment(events: Stream) -> None:
    begun = time.monotonic()
    while (left := begun + KEEPALIVE_WITHIN - time.monotonic()) > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                block = await events._block()
                if block.comment is not None and time.monotonic() - begun > QUIET:
                    return
    raise Seen(f"Nothing came on an idle stream within {KEEPALIVE_WITHIN:g} s.")
