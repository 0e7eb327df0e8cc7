"""Who is connected to a topic, over all workers.

Each worker keeps its own share in a hash per topic, and writes it anew when it has changed. A share
that is not renewed, of a worker that has died, no longer counts.
"""

import asyncio
import secrets
import time
from collections import Counter
from typing import Any

import orjson
from fastapi import APIRouter
from redis.exceptions import RedisError

from .auth import CurrentUser
from .broker import client
from .manager import Who, manager
from .permissions import Topic, require

WRITE_SECONDS = 1.0
RENEW_SECONDS = 20.0
VALID_SECONDS = 60.0

router = APIRouter()


class Presence:
    """This worker's share."""

    def __init__(self) -> None:
        self.worker = secrets.token_hex(8)
        self.written: set[str] = set()  # topics with a share of ours

    async def run(self) -> None:
        """Write what has changed, and everything now and then."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if time.monotonic() - renewed > RENEW_SECONDS:
                manager.changed |= self.written
                renewed = time.monotonic()
            try:
                await self.write()
            except RedisError:
                manager.changed |= self.written  # later

    async def write(self) -> None:
        """Write the shares of topics that have changed."""
        topics, manager.changed = manager.changed, set()
        self.written |= topics
        if not topics:
            return
        pipeline = client.pipeline(transaction=False)
        until = time.time() + VALID_SECONDS
        for topic in topics:
            if users := manager.present(topic):
                share = orjson.dumps([until, list(users.items())])
                pipeline.hset(key(topic), self.worker, share)
                pipeline.expire(key(topic), int(VALID_SECONDS))
            else:
                pipeline.hdel(key(topic), self.worker)
        await pipeline.execute()
        self.written -= {topic for topic in topics if not manager.present(topic)}

    async def users(self, topic: str) -> Counter[Who]:
        """This worker's by its own knowledge, the others' by their shares."""
        users = manager.present(topic)
        for worker, share in (await client.hgetall(key(topic))).items():
            until, others = orjson.loads(share)
            if worker.decode() != self.worker and until > time.time():
                users.update({who and tuple(who): count for who, count in others})
        return users


def key(topic: str) -> str:
    """The hash's name in Redis."""
    return f"presence:{topic}"


presence = Presence()


@router.get("/topics/{topic}/presence")
async def present(topic: Topic, user: CurrentUser) -> dict[str, Any]:
    """Who is connected, and how many connections there are."""
    require(user, topic, "read")
    users = await presence.users(topic)
    named = sorted((*who, count) for who, count in users.items() if who)
    return {
        "topic": topic,
        "users": [{"id": pk, "username": name, "connections": n} for pk, name, n in named],
        "connections": users.total(),
    }
