"""Answers that are generated on the server and published to a topic of their own.

The row decides. Whoever sets its `ended` publishes the last event in the same transaction, and
nothing is published once it is set: the process at work, a DELETE that came to another, and the
look for answers whose process has died can't contradict each other, and each topic ends once.
"""

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any, Final
from weakref import WeakSet

from django.contrib.auth import get_user_model
from django.db import router, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from ..delivery.publish import announce, make_event
from ..eventlog import get_event_log
from ..events.event import Event
from ..events.topic import user_topic
from ..exceptions import InvalidPrompt, ProviderError
from ..models import Event as EventRow
from ..models import Topic
from ..utils.aio import at_loop_end, spawn
from ..utils.cancellation import cancelled
from ..utils.threads import in_database_thread
from .conf import settings
from .models import Generation
from .provider import Answer, Provider, validate_prompt
from .providers import get_provider
from .slots import slots, too_many_of_one_user

logger = logging.getLogger("realtime.llm")

MAX_KEY_CHARS: Final = 200
SHUTDOWN_SECONDS: Final = 5.0  # for the last events of what a stopping process was answering
SWEEP_BATCH: Final = 200  # rows looked at in one go
BYTES_PER_CHAR: Final = 6  # the most that JSON needs for one (an escaped control character)
_TOPIC = re.compile(r"user\.[A-Za-z0-9_-]+\.chat\.[A-Za-z0-9]+")

GONE: Final = "The server that was answering has gone before the answer was complete; ask again."
STOPPING: Final = "The server stopped before the answer was complete; ask again."
BROKEN: Final = "The answer could not be completed; ask again."

_running: dict[str, "Run"] = {}  # this process's, by the generation's name
_starting: dict[tuple[Any, str | None, str], asyncio.Task[Generation]] = {}
_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # loops whose end ends their answers


# -- starting and cancelling


async def start(user: Any, prompt: object, *, key: str | None = None) -> Generation:
    """Begin to answer `prompt` on the server, and return at once.

    With the same `key` (of an Idempotency-Key header), a user gets the same generation again and
    nothing is asked twice. Raises `InvalidPrompt`, `TooManyRequests` or `ProviderUnavailable`.
    """
    asked = validate_prompt(prompt)
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidPrompt(f"An Idempotency-Key has 1 to {MAX_KEY_CHARS} characters.")
    # Shielded: a client that leaves now and comes back with its key finds one answer, at work. One
    # that comes twice at once waits for the same.
    name = (user.pk, key, asked)
    task = None if key is None else _starting.get(name)
    if task is None:
        task = spawn(_start(user, asked, key))
        if key is not None:
            _starting[name] = task
            task.add_done_callback(lambda _: _starting.pop(name, None))
    return await asyncio.shield(task)


async def cancel(name: str, user: Any) -> bool:
    """End a generation, wherever it runs; False if `user` has none of that name. Staff have all."""
    found, event = await in_database_thread(_cancel, name, user)
    await _announce([event])
    if found and name in _running:
        _running[name].cancel()
    return found


async def cancel_all(names: Iterable[str]) -> int:
    """End those that are still at work, whoever's they are; how many. The caller has asked who may:
    the admin does."""
    count = 0
    for name in names:
        event = await in_database_thread(_end_cancelled, name)
        await _announce([event])
        if name in _running:
            _running[name].cancel()
        count += event is not None
    return count


async def _start(user: Any, prompt: str, key: str | None) -> Generation:
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    if key is not None and (row := await in_database_thread(_find, user, key, digest)):
        return row
    provider = await get_provider()
    with ExitStack() as stack:
        stack.enter_context(slots.take(user))
        await _announce(await in_database_thread(sweep))
        created, is_new = await in_database_thread(
            _create, user, key, digest, provider.model or provider.name
        )
        if is_new:
            Run(created, stack.pop_all(), provider, prompt).start()
    return created


# -- running


class Run:
    """One generation at work in this process."""

    def __init__(self, row: Generation, slot: ExitStack, provider: Provider, prompt: str) -> None:
        self._row = row
        self._slot = slot  # held until the end
        self._provider = provider
        self._prompt = prompt
        self._pending: list[str] = []  # read and not yet published
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work in a task of its own, which outlives the request."""
        loop = asyncio.get_running_loop()
        if loop not in _watched:
            _watched.add(loop)
            at_loop_end(_stop_all)
        _running[self._row.name] = self
        self._task = spawn(self._run())

    def cancel(self) -> None:
        """Close the upstream request and end."""
        assert self._task is not None
        self._task.cancel()

    async def ended(self) -> None:
        """Wait for the end."""
        assert self._task is not None
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            with self._slot:
                await self._publish_answer()
        except asyncio.CancelledError:
            # Whoever cancelled a single answer has ended it already; then this does nothing.
            await self._end("error", {"detail": STOPPING})
            raise
        except ProviderError as error:
            await self._end("error", {"detail": str(error)})
        except Exception:
            logger.exception("An answer on %s failed", self._row.topic)
            await self._end("error", {"detail": BROKEN})
        finally:
            _running.pop(self._row.name, None)

    async def _publish_answer(self) -> None:
        now = asyncio.get_running_loop().time
        async with Answer(self._provider, self._prompt) as answer:
            reading = asyncio.create_task(self._read(answer))
            reading.add_done_callback(lambda _: self._news.set())
            try:
                last = -settings.LLM_BATCH_SECONDS
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(settings.LLM_HEARTBEAT_SECONDS):
                            await self._news.wait()
                    # The first piece goes out at once, those that follow soon after in one event.
                    pause = last + settings.LLM_BATCH_SECONDS - now()
                    if self._pending and pause > 0:
                        await asyncio.sleep(pause)
                    self._news.clear()
                    is_complete = reading.done()
                    text = "".join(self._pending)
                    self._pending.clear()
                    last = now()
                    if not await self._write(text):
                        return
                    if is_complete:
                        break
                reading.result()
            finally:
                await cancelled(reading)
        assert answer.stop is not None
        await self._end("done", answer.stop.data())

    async def _read(self, answer: Answer) -> None:
        # Ahead of the log by as much as LLM_MAX_ANSWER_CHARS allows.
        async for text in answer:
            self._pending.append(text)
            self._news.set()

    async def _write(self, text: str) -> bool:
        """Publish some text, or just say that we are alive; False when the answer has ended."""
        events = await in_database_thread(_append, self._row, _in_batches(text))
        if events is None:
            seconds = settings.LLM_UNHEARD_SECONDS
            detail = f"Nobody has listened for {seconds:g} s, so the answer was not completed."
            await self._end("error", {"detail": detail})  # if nobody else has ended it
            return False
        await _announce(events)
        return True

    async def _end(self, type: str, data: dict[str, Any]) -> None:
        try:
            await _announce([await in_database_thread(_end, running(self._row.pk), type, data)])
        except Exception:
            # The look for answers without a sign of life will end it.
            logger.exception("The end of the answer on %s could not be published", self._row.topic)


async def _stop_all() -> None:
    """End what this process is answering, since its loop ends."""
    runs = list(_running.values())
    for run in runs:
        run.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(SHUTDOWN_SECONDS):
            await asyncio.gather(*(run.ended() for run in runs))


# -- the look of those who serve listeners


async def look_after(topics: Iterable[str]) -> None:
    """Of the topics that are listened to in this process: note that answers are, and end those
    whose process shows no sign of life. Called by the hub, every `HEAD_CHECK_SECONDS`."""
    if ours := [topic for topic in topics if _TOPIC.fullmatch(topic)]:
        await _announce(await in_database_thread(_look_after, ours))


def _look_after(topics: list[str]) -> list[Event]:
    events: list[Event] = []
    for first in range(0, len(topics), SWEEP_BATCH):
        rows = running().filter(topic__in=topics[first : first + SWEEP_BATCH])
        if pks := list(rows.values_list("pk", flat=True)):
            running().filter(pk__in=pks).update(heard=Now())
            events += sweep(rows)
    return events


def sweep(among: QuerySet[Generation] | None = None) -> list[Event]:
    """End the answers without a sign of life for `LLM_LEASE_SECONDS`, and forget the oldest."""
    rows = running() if among is None else among
    # By the database's clock throughout: those of several hosts may disagree.
    late = rows.filter(beat__lt=Now() - timedelta(seconds=settings.LLM_LEASE_SECONDS))
    events = []
    for row in late[:SWEEP_BATCH]:
        dead = late.filter(pk=row.pk)  # still, when it is our turn
        if event := _end(dead, "error", {"detail": GONE}):
            events.append(event)
    if among is None and settings.RETENTION_SECONDS is not None:
        cutoff = timezone.now() - timedelta(seconds=settings.RETENTION_SECONDS)
        old = Generation.objects.filter(ended__lt=cutoff)[:SWEEP_BATCH]
        names = list(old.values_list("topic", flat=True))
        if names:  # retention has dropped, or is about to drop, their events
            Topic.objects.filter(name__in=names).delete()
            Generation.objects.filter(topic__in=names).delete()
    return events


# -- in the database


def running(pk: int | None = None) -> QuerySet[Generation]:
    """Those that have not ended; or the one, unless it has."""
    rows = Generation.objects.filter(ended=None)
    return rows if pk is None else rows.filter(pk=pk)


def _find(user: Any, key: str, digest: str) -> Generation | None:
    row = Generation.objects.filter(user=user, key=key).first()
    if row is not None and row.digest != digest:
        raise InvalidPrompt("This Idempotency-Key came with another prompt before; use a new one.")
    return row


def _create(user: Any, key: str | None, digest: str, model: str) -> tuple[Generation, bool]:
    with transaction.atomic(using=_alias()):
        # Locks the user: of two requests at once, the second sees what the first has begun.
        get_user_model()._base_manager.select_for_update().get(pk=user.pk)
        if key is not None and (row := _find(user, key, digest)):
            return row, False
        if running().filter(user=user).count() >= settings.LLM_PER_USER:
            raise too_many_of_one_user()
        name = secrets.token_hex(8)
        topic = f"{user_topic(user.pk)}.chat.{name}"
        row = Generation.objects.create(
            user=user,
            name=name,
            topic=topic,
            key=key,
            digest=digest,
            model=model[:100],
            beat=Now(),
            heard=Now(),
        )
        return row, True


def _append(row: Generation, texts: list[str]) -> list[Event] | None:
    """Log the texts with a sign of life; None if the answer has ended or nobody listens."""
    log = get_event_log()
    with transaction.atomic(using=_alias()):
        unheard = timedelta(seconds=settings.LLM_UNHEARD_SECONDS)
        if not running(row.pk).filter(heard__gte=Now() - unheard).update(beat=Now()):
            return None
        return log.append([make_event(row.topic, {"token": text}, "message") for text in texts])


def _end(rows: QuerySet[Generation], type: str, data: dict[str, Any]) -> Event | None:
    """End the one row, with its last event; None if there is none: somebody has ended it."""
    row = rows.first()
    if row is None:
        return None
    with transaction.atomic(using=_alias()):
        outcome = data.get("stop_reason", "error")[:20]
        usage = data.get("usage", {})
        tokens = {name: usage.get(name) for name in ("input_tokens", "output_tokens")}
        if not rows.filter(pk=row.pk).update(ended=Now(), outcome=outcome, **tokens):
            return None
        return get_event_log().append([make_event(row.topic, data, type)])[0]


def _cancel(name: str, user: Any) -> tuple[bool, Event | None]:
    row = Generation.objects.filter(name=name).first()
    if row is None or not (row.user_id == user.pk or getattr(user, "is_staff", False)):
        return False, None
    return True, _end_cancelled(name)


def _end_cancelled(name: str) -> Event | None:
    return _end(running().filter(name=name), "done", {"stop_reason": "cancelled"})


def _alias() -> str:
    # That of the log: rows and events commit together.
    return router.db_for_write(EventRow)


def _in_batches(text: str) -> list[str]:
    size = min(settings.LLM_BATCH_CHARS, (settings.MAX_EVENT_BYTES - 20) // BYTES_PER_CHAR)
    return [text[first : first + size] for first in range(0, len(text), max(1, size))]


async def _announce(events: Iterable[Event | None]) -> None:
    for event in events:
        if event is not None:
            await announce(event)
