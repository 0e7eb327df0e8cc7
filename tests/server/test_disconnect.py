"""The event that says that the peer has left."""

import asyncio

from realtime.server.disconnect import DisconnectEvent


async def test_waiters_and_callbacks() -> None:
    gone, called = DisconnectEvent(), []
    gone.add_callback(lambda: called.append(1))
    removed = lambda: called.append(2)  # noqa: E731
    gone.add_callback(removed)
    gone.remove_callback(removed)
    gone.remove_callback(removed)
    waiters = [asyncio.ensure_future(gone.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[1].cancel()
    await asyncio.sleep(0)
    assert not gone.is_set()
    gone.set()
    gone.set()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert gone.is_set()
    await gone.wait()
    gone.add_callback(lambda: called.append(3))
    assert called == [1, 3]
