"""Answers that are generated on the server and published to a topic of their own: start, cancel."""

import asyncio
import hashlib
import re
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from ..events.key import validate_key
from ..utils.aio import shielded, spawn
from ..utils.threads import DATABASE
from . import store
from .models import Generation
from .provider import validate_prompt
from .providers import get_provider
from .run import RUNNING, Run, announce_all
from .slots import slots

_TOPIC = re.compile(r"user\.[A-Za-z0-9_-]+\.chat\.[A-Za-z0-9]+")

_starting: dict[tuple[Any, str | None, str], asyncio.Task[Generation]] = {}


async def start(user: Any, prompt: object, *, key: str | None = None) -> Generation:
    """Begin to answer `prompt` on the server, and return at once.

    With the same `key` (of an Idempotency-Key header), a user gets the same generation again and
    nothing is asked twice. Raises `InvalidPrompt`, `InvalidKey`, `TooManyRequests`,
    `ProviderUnavailable` or, where the key came with another prompt, `KeyReused`.
    """
    asked = validate_prompt(prompt)
    if key is not None:
        validate_key(key)
    # Shielded: a client that leaves now and comes back with its key finds one answer, at work. One
    # that comes twice at once waits for the same.
    request = (user.pk, key, asked)
    task = None if key is None else _starting.get(request)
    if task is None:
        task = spawn(_start(user, asked, key))
        if key is not None:
            _starting[request] = task
            task.add_done_callback(lambda _: _starting.pop(request, None))
    return await shielded(task)


async def cancel(name: str, user: Any) -> bool:
    """End a generation, wherever it runs; return False if `user` has none of that name.

    Staff have all.
    """
    found, event = await DATABASE.run(store.cancel, name, user)
    await announce_all([event])
    if found and (run := RUNNING.get().get(name)):
        run.cancel()
    return found


async def cancel_all(names: Iterable[str]) -> int:
    """End those that are still at work, of any user, and return how many.

    The caller has checked the permission, as the admin does.
    """
    count = 0
    for name in names:
        event = await DATABASE.run(store.end_cancelled, name)
        await announce_all([event])
        if run := RUNNING.get().get(name):
            run.cancel()
        count += event is not None
    return count


async def _start(user: Any, prompt: str, key: str | None) -> Generation:
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    if key is not None and (row := await DATABASE.run(store.find, user, key, digest)):
        return row
    provider = await get_provider()
    with ExitStack() as stack:
        stack.enter_context(slots.take(user))
        await announce_all(await DATABASE.run(store.sweep))
        created, is_new = await DATABASE.run(
            store.create, user, key, digest, provider.model or provider.name
        )
        if is_new:
            Run(created, stack.pop_all(), provider, prompt).start()
    return created


async def reap_orphans(topics: Iterable[str], **kwargs: Any) -> None:
    """End the answers on `topics` whose process shows no sign of life.

    A receiver of `heads_checked`, which is sent with the topics that have readers here.
    """
    # First what is quick: of 20,000 topics hardly one is an answer's.
    if ours := [topic for topic in topics if ".chat." in topic and _TOPIC.fullmatch(topic)]:
        await announce_all(await DATABASE.run(store.note_listeners, ours))
