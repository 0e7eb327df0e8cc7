"""Leases: what an answer on a request holds among those of its user, in any process.

The count waits for the database, and the model need not wait for the count: it is asked first, and
its answer ended where there were too many.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

from django.db import transaction
from django.db.models.functions import Now

from ..exceptions import TooManyRequests
from ..utils.aio import PerLoop, cancel_and_wait, spawn
from ..utils.outages import ANSWERED_ERRORS, answer_to
from ..utils.threads import DATABASE
from . import store
from .conf import settings
from .models import Lease
from .slots import slots

logger = logging.getLogger("realtime.llm")

T = TypeVar("T")

LEAD_SECONDS: Final = 0.01
"""Seconds that the model is asked ahead of the count, whose work would delay the first text."""


class Leases:
    """The leases of one event loop's answers, renewed for as long as these are at work."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self._renewing: asyncio.Task[None] | None = None

    def add(self, pk: int) -> None:
        """Renew a lease from now on."""
        self.held.add(pk)
        if self._renewing is None:
            self._renewing = spawn(self._renew())

    async def discard(self, pk: int) -> None:
        """Give a lease back."""
        self.held.discard(pk)
        if not self.held:
            await self.close()
        await DATABASE.run_twice(end, pk)

    async def close(self) -> None:
        """Renew no more."""
        if self._renewing is not None:
            renewing, self._renewing = self._renewing, None
            await cancel_and_wait(renewing)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(settings.LLM_HEARTBEAT_SECONDS)
            try:
                await DATABASE.run_twice(renew, list(self.held))
            except Exception:
                logger.warning("Can't renew the leases of answers; trying again", exc_info=True)


@asynccontextmanager
async def leased(user: Any) -> AsyncIterator[Callable[[Callable[[], Awaitable[T]]], Awaitable[T]]]:
    """Hold a lease for the length of a with block, which begins before the lease is there.

    A block that ends or fails within `LEAD_SECONDS` has none. Gives a function that calls and
    awaits what the block waits for. It raises `TooManyRequests` as soon as it is known that the
    user has too many answers, or `DatabaseUnavailable`.
    """
    lead = spawn(asyncio.sleep(LEAD_SECONDS))
    beginning = spawn(_begin(user, lead))
    try:
        yield partial(_unless_refused, beginning)
        lead.cancel()
    except Exception:  # a client that leaves is none: whether its user has too many is found out
        lead.cancel()
        raise
    finally:
        await asyncio.shield(spawn(_give_back(_leases.get(), beginning)))


async def _unless_refused(beginning: asyncio.Task[int], wanted: Callable[[], Awaitable[T]]) -> T:
    if beginning.done():
        beginning.result()
        return await wanted()

    def end_if_refused(_: asyncio.Task[int]) -> None:
        if not beginning.cancelled() and beginning.exception():
            with suppress(RuntimeError):  # what was waited for has come in the same turn
                timer.reschedule(0)

    try:
        async with asyncio.timeout(None) as timer:
            beginning.add_done_callback(end_if_refused)
            try:
                return await wanted()
            finally:
                beginning.remove_done_callback(end_if_refused)
    except TimeoutError:
        if timer.expired():
            beginning.result()  # raises why
        raise


async def _begin(user: Any, lead: asyncio.Task[None]) -> int:
    await lead
    try:
        pk = await DATABASE.run(begin, user)
    except TooManyRequests:
        slots.note_full(user)
        raise
    except ANSWERED_ERRORS as error:
        raise answer_to(error) from error
    _leases.get().add(pk)
    return pk


async def _give_back(leases: Leases, beginning: asyncio.Task[int]) -> None:
    await asyncio.wait([beginning])
    if beginning.cancelled() or beginning.exception() is not None:
        return  # there is none
    try:
        await leases.discard(beginning.result())
    except Exception:
        logger.warning("Can't give the lease of an answer back; it expires", exc_info=True)


def begin(user: Any) -> int:
    """Return a new lease of the user's; raise `TooManyRequests` over `LLM_PER_USER`."""
    with transaction.atomic(using=store.alias()):
        store.lock(user)
        store.require_room(user)
        return Lease.objects.create(user_id=user.pk, beat=Now()).pk


def renew(pks: Sequence[int]) -> None:
    """Give these leases a new sign of life, and delete those of processes that have gone."""
    Lease.objects.filter(pk__in=pks).update(beat=Now())
    Lease.objects.filter(beat__lt=store.expiry()).delete()


def end(pk: int) -> None:
    """Delete a lease."""
    Lease.objects.filter(pk=pk).delete()


_leases: Final = PerLoop(Leases, Leases.close)
