"""The application's heartbeat, on a clock that does not wait; test_consumers has real sockets."""

import asyncio

from django.test import override_settings

from realtime.websocket.heartbeat import Heartbeat

from ..support.hubs import instantly


class Socket:
    """Counts the pings, and notes the code of the close."""

    def __init__(self) -> None:
        self.pings = 0
        self.codes: list[int] = []
        self.is_handling = False

    async def send_text(self, text: str) -> None:
        self.pings += 1

    async def close(self, code: int, reason: str) -> None:
        self.codes.append(code)


def test_loop_that_stood_still_closes_nobody_whom_it_did_not_ask():
    async def main() -> None:
        socket, loop = Socket(), asyncio.get_running_loop()
        heartbeat = Heartbeat(socket)
        await asyncio.sleep(11)
        heartbeat.hear()
        heartbeat.answer()
        loop.now += 60
        await asyncio.sleep(1)
        assert (socket.pings, socket.codes) == (2, [])
        heartbeat.hear()
        await asyncio.sleep(25)
        assert (socket.pings, socket.codes) == (4, []), "two are without an answer"
        await asyncio.sleep(10)
        assert (socket.pings, socket.codes) == (4, [1011])

    with override_settings(REALTIME={"HEARTBEAT_SECONDS": 10.0}):
        instantly(main())


def test_client_whose_message_takes_long_to_handle_is_not_silent():
    async def main() -> None:
        socket = Socket()
        heartbeat = Heartbeat(socket)
        heartbeat.answer()
        socket.is_handling = True
        await asyncio.sleep(101)
        socket.is_handling = False
        await asyncio.sleep(15)
        assert (socket.pings, socket.codes) == (11, []), "it has two pings to answer still"
        await asyncio.sleep(10)
        assert socket.codes == [1011]
        heartbeat.stop()

    with override_settings(REALTIME={"HEARTBEAT_SECONDS": 10.0}):
        instantly(main())
