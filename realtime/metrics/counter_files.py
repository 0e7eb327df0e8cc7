"""Files of numbers: one for each process of this host, and a total of those that have ended.

A process holds a lock on its file for as long as it lives. A reader finds by that which processes
have ended, adds their counts to the total, once, and removes their files.
"""

import errno
import fcntl
import json
import logging
import mmap
import os
import secrets
import stat
import time
from collections import Counter as Sums
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from .cells import MAX_VALUE, RECORDS, SIZE, UNSET, Kind, Record, cells, parse

logger = logging.getLogger("realtime.metrics")

SUFFIX: Final = ".counters"
TOTAL: Final = "total.json"
LOCK: Final = "lock"
LOCK_SECONDS: Final = 2.0  # that a reader waits for another one
RETRY_SECONDS: Final = 0.01
MAX_FILES: Final = 1_000  # that are read at once; with more, those that have ended come next time
MAX_TOTAL_BYTES: Final = 1_048_576
NAME_BYTES: Final = 8
TO_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a link or a pipe is none of ours
NEW: Final = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
NO_FILES: Final = (
    "Metrics are counted in this process alone, and end with it: %s can't be written (%s)."
)
LEFT_OUT: Final = "%s is left out of the metrics: %s"
NOT_FOLDED: Final = "What ended processes have counted stays in their files in %s for now: %s"


class CounterFiles:
    """The files of one folder, which only this user can read or write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._warned: set[str] = set()
        self._own: int | None = None  # the descriptor that holds the lock; kept open

    def open(self) -> bool:
        """Let this process count in a file of its own; return False if that is not possible.

        It then counts on in memory, and the log says why, once.
        """
        try:
            self._prepare()
            with self._locked():
                self._open()
        except OSError as error:
            logger.warning(NO_FILES, self.folder, error)
            return False
        with suppress(OSError):  # files of those ended would pile up where nobody asks
            self.read()
        return True

    def read(self) -> dict[str, int]:
        """Return the numbers of all processes that write here, with the counts of ended ones.

        Blocks on the disk, and for `LOCK_SECONDS` at most on others that read; raises OSError.
        """
        with self._locked():
            total, folded = self._total()
            sums: Sums[str] = Sums()
            least: dict[str, int] = {}
            ended: dict[str, Sums[str]] = {}
            for name, descriptor in self._descriptors():
                try:
                    has_ended = _lock(descriptor)  # first: what is read then is all there is
                    records = self._records(name, descriptor)
                    if not has_ended:
                        for record in records:
                            if record.kind is not Kind.MIN:
                                sums[record.name] += record.value
                            elif record.value != UNSET:
                                value = least.get(record.name, record.value)
                                least[record.name] = min(value, record.value)
                    elif records:
                        counts = {r.name: r.value for r in records if r.kind is Kind.COUNT}
                        ended[name] = Sums(counts) if name not in folded else Sums()
                finally:
                    os.close(descriptor)
            if ended:
                for counts in ended.values():
                    total.update(counts)
                left = (name for name in folded if (self.folder / name).exists())
                try:
                    self._fold(total, [*ended, *left])
                except OSError as error:  # whoever reads next finds the files, and tries again
                    self._warn_once(TOTAL, NOT_FOLDED, self.folder, error)
        sums.update(total)
        return {**sums, **least}

    # -- the folder

    def _prepare(self) -> None:
        # What is counted is nobody else's business, and nobody else puts files here.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError("it is no folder of this user's")
        if found.st_mode & 0o077:
            self.folder.chmod(0o700)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(self.folder / LOCK, flags, 0o600)
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while not _lock(descriptor):
                if time.monotonic() > deadline:
                    raise TimeoutError("another process reads them, and does not end")
                time.sleep(RETRY_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(NAME_BYTES)}{SUFFIX}"
        path = self.folder / name
        descriptor = os.open(path, os.O_RDWR | NEW, 0o600)
        try:
            _lock(descriptor)
            # Each block is there before it is mapped: to count where the disk has none is a SIGBUS.
            if os.pwrite(descriptor, bytes(SIZE), 0) != SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            cells.move_to(mmap.mmap(descriptor, SIZE))
        except BaseException:
            path.unlink()
            os.close(descriptor)
            raise
        self._own = descriptor
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        # A process that was forked off would hold the lock after this one has ended.
        if self._own is not None:
            os.close(self._own)
            self._own = None

    # -- reading

    def _descriptors(self) -> Iterator[tuple[str, int]]:
        with os.scandir(self.folder) as entries:
            names = (entry.name for entry in entries if entry.name.endswith(SUFFIX))
            found = list(islice(names, MAX_FILES))
        for name in found:
            with suppress(OSError):
                yield name, os.open(self.folder / name, TO_READ)

    def _records(self, name: str, descriptor: int) -> list[Record]:
        """Return the records of a file; none if it is not such a file, which is logged once."""
        found = os.fstat(descriptor)
        is_own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        try:
            if not is_own or found.st_size != SIZE:
                raise ValueError("not a file of counters")
            return list(parse(os.pread(descriptor, SIZE, 0)))
        except ValueError as error:
            self._warn_once(name, LEFT_OUT, self.folder / name, error)
            return []

    def _warn_once(self, name: str, message: str, *args: object) -> None:
        if name not in self._warned and len(self._warned) < MAX_FILES:
            self._warned.add(name)
            logger.warning(message, *args)

    # -- the total

    def _total(self) -> tuple[Sums[str], set[str]]:
        """Return what ended processes have counted, and the files that are in it already."""
        path = self.folder / TOTAL
        try:
            descriptor = os.open(path, TO_READ)
        except FileNotFoundError:
            return Sums(), set()
        try:
            return _parse_total(os.pread(descriptor, MAX_TOTAL_BYTES, 0))
        except (ValueError, RecursionError) as error:
            logger.warning("%s can't be read, and begins anew: %s", path, error)
            return Sums(), set()
        finally:
            os.close(descriptor)

    def _fold(self, total: Mapping[str, int], ended: list[str]) -> None:
        """Keep the total and remove the files that are in it.

        It names them: a reader that is killed in between has them counted once all the same.
        """
        path, new = self.folder / TOTAL, self.folder / f"{TOTAL}.new"
        data = json.dumps({"folded": ended, "counts": total}).encode()
        with suppress(FileNotFoundError):
            new.unlink()
        with open(os.open(new, os.O_WRONLY | NEW, 0o600), "wb") as file:
            file.write(data)
        new.replace(path)
        for name in ended:
            (self.folder / name).unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse_total(data: bytes) -> tuple[Sums[str], set[str]]:
    """Return the counts and the names of the files in them; raise ValueError for anything else."""
    found: Any = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not a total")
    counts, folded = found.get("counts"), found.get("folded")
    if not isinstance(counts, dict) or not isinstance(folded, list) or len(counts) > 2 * RECORDS:
        raise ValueError("not a total")
    if not all(type(value) is int and 0 <= value <= MAX_VALUE for value in counts.values()):
        raise ValueError("counts that can't be")
    return Sums(counts), {str(name) for name in folded}
