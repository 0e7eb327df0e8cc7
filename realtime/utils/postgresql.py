"""A connection to PostgreSQL that notices when nobody answers any more.

A host that is gone, a hung pooler or a firewall that has forgotten a connection leaves it open and
silent. TCP's own time limits see nothing of it where the kernel of a proxy acknowledges what nobody
reads, and a limit on statements does not tell a slow one from one that was never received.
"""

import logging
import os
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakSet, ref

import psycopg
from psycopg.pq import TransactionStatus

from ..conf import settings

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

logger = logging.getLogger("realtime.database")

PROBE_SECONDS: Final = 2  # to connect and ask whether the server is still at work
IS_AT_WORK: Final = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s"
SILENT: Final = (
    "PostgreSQL has not answered for %s s and does not work at it: the connection is closed, and "
    "those that lie idle in its pool are replaced. If this stays, look at the server's host, and "
    "at the pooler or firewall on the way to it."
)


class _Probe(psycopg.Connection[Any]):
    """A connection to ask one question on."""

    @property
    def _limit(self) -> float | None:
        return PROBE_SECONDS

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what `gen` returns; raise OperationalError when no answer is to be had."""
        return super().wait(self._watch(gen), *args, **kwargs)

    def _watch(self, gen: Any) -> Generator[Any, Any, Any]:
        asked = time.monotonic()
        ready = None
        is_silent = False
        while True:
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield wanted
            if ready:  # psycopg sends zero where nothing came in an interval
                asked, is_silent = time.monotonic(), False
            elif is_silent:  # nor has an answer come that was under way
                self._give_up()
            elif (limit := self._limit) is not None and time.monotonic() > asked + limit:
                is_silent = not self._is_at_work()
                asked = time.monotonic()

    def _is_at_work(self) -> bool:
        return False

    def _give_up(self) -> None:
        self.close()
        raise psycopg.OperationalError("the server did not answer")


class WatchedConnection(_Probe):
    """A connection that breaks when the server does not answer for `DATABASE_ANSWER_SECONDS`.

    To be named as `connection_class` of a pool. A statement that takes longer, or waits for a lock,
    is left alone: the server is asked on a new connection whether it is at work on it.
    """

    _all: ClassVar["WeakSet[WatchedConnection]"] = WeakSet()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    # Whether another connection got no answer since this one was made.
    is_suspect = False
    # The pool that has lent it, also where it is not lent now.
    _home: "ref[ConnectionPool[Any]] | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with self._lock:
            self._all.add(self)

    @property
    def _limit(self) -> float | None:
        return settings.DATABASE_ANSWER_SECONDS

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what `gen` returns; raise OperationalError when no answer is to be had."""
        pool: Any = getattr(self, "_pool", self)  # which is what notes the loan
        if pool is not None and pool is not self:
            self._home = ref(pool)
        try:
            if self.is_suspect and pool is None:
                # Its pool asks whether it works, which takes long where nobody answers.
                super()._give_up()
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError:
            if self.closed:
                self._check_idle()
            raise

    def _check_idle(self) -> None:
        """Have the pool replace what lies idle in it and does not work either.

        A loan looks at one after the other, and waits for 1, 2, 4 s before the next look: with more
        than two that a restart of the server has broken none would be had in time.
        """
        pool = None if self._home is None else self._home()
        if pool is not None and not pool.closed:
            pool.check()

    def _give_up(self) -> None:
        logger.error(SILENT, self._limit)
        self._suspect_others()
        super()._give_up()

    def _is_at_work(self) -> bool:
        if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
            return True  # one that listens for notifications has asked nothing
        info = self.info
        with suppress(psycopg.Error):
            probe = _Probe.connect(
                info.dsn, password=info.password, connect_timeout=PROBE_SECONDS, autocommit=True
            )
            with probe:
                row = probe.execute(IS_AT_WORK, [info.backend_pid]).fetchone()
            return row is not None and row[0]
        return False

    def _suspect_others(self) -> None:
        """Mark all others, which may be as silent: none that lies idle in a pool is lent again.

        None is closed here: the thread that uses it would go on in memory that has been freed.
        """
        with self._lock:
            others = [other for other in self._all if other is not self]
        for other in others:
            other.is_suspect = True

    @classmethod
    def forget(cls) -> None:
        """Leave all connections to the parent of this process: to close one would end its."""
        cls._all, cls._lock = WeakSet(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WatchedConnection.forget)
