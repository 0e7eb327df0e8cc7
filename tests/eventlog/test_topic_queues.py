"""A queue for each topic: none waits for another, and not all threads are taken."""

import asyncio
from collections.abc import Sequence

from django.test import override_settings

from realtime.eventlog.topic_queues import TopicQueues

from ..support.hubs import turns


def test_calls_of_a_topic_go_together_and_half_of_the_threads_stay_free():
    batches: list[list[str]] = []
    doors = {topic: asyncio.Event() for topic in "abc"}

    async def run(calls: Sequence[str]) -> Sequence[str | BaseException]:
        batches.append(list(calls))
        await doors[calls[0][0]].wait()
        return [call.upper() for call in calls]

    async def main() -> None:
        queues = TopicQueues(run)
        calls = [asyncio.create_task(queues.put(call[0], call)) for call in ("a1", "b1", "c1")]
        await turns()
        calls += [asyncio.create_task(queues.put(call[0], call)) for call in ("a2", "a3")]
        await turns()
        assert batches == [["a1"], ["b1"]]  # c has to wait for a thread
        doors["b"].set()
        assert await calls[1] == "B1"
        await turns()
        assert batches[2:] == [["c1"]]
        doors["a"].set()
        doors["c"].set()
        assert await asyncio.gather(*calls) == ["A1", "B1", "C1", "A2", "A3"]
        assert batches[3:] == [["a2", "a3"]]
        del calls
        await turns()
        assert not queues._batchers  # nothing is left of a topic

    with override_settings(REALTIME={"DATABASE_THREADS": 4}):
        asyncio.run(main())
