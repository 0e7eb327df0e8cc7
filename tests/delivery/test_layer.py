"""`realtime.delivery.layer`: within time limits, without raising, and with one line in the log."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from realtime.delivery.layer import Layer

from ..support.clients import FakeLayer, InstantLoop, stage

Play = Callable[[Layer, FakeLayer], Awaitable[None]]


def run(play: Play) -> None:
    async def main() -> None:
        fake = FakeLayer()
        layer = Layer(fake)
        assert layer.is_away
        listening = asyncio.create_task(layer.receive())
        await layer.ready()
        assert not layer.is_away
        await play(layer, fake)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    with stage(ANNOUNCE_TIMEOUT_SECONDS=2.0), asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main())


def test_what_is_sent_to_a_group_is_received_by_who_has_joined():
    async def play(layer: Layer, fake: FakeLayer) -> None:
        assert await layer.join("a")
        assert fake.groups == {"a": {layer.channel}}
        assert await layer.send("a", {"type": "x"})
        await asyncio.sleep(1)
        assert await layer.leave("a")
        assert fake.groups == {}

    run(play)


@pytest.mark.parametrize("how", ["down", "hanging"])
def test_a_layer_that_fails_is_told_once_and_its_return_once(how, caplog):
    async def play(layer: Layer, fake: FakeLayer) -> None:
        setattr(fake, how, True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert not await layer.join("a")
        assert layer.is_away
        assert not await layer.leave("a")
        assert not await layer.send("a", {"type": "x"})
        assert loop.time() - began <= 3 * 2.0 + 0.1
        setattr(fake, how, False)
        assert await layer.send("a", {"type": "x"})
        assert await layer.join("a")
        assert not layer.is_away

    run(play)
    said = [record.getMessage() for record in caplog.records if record.name == "realtime.hub"]
    assert len(said) == 2
    assert "takes no group changes" in said[0]
    assert "works again" in said[1]


def test_what_listening_raises_is_raised():
    async def main() -> None:
        fake = FakeLayer()
        fake.down = True
        with pytest.raises(ConnectionError):
            await Layer(fake).receive()

    with stage(), asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main())
