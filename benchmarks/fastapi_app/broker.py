"""Redis, shared by all modules of this worker."""

import os

import redis.asyncio as redis

client = redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
