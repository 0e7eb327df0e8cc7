"""One mutant on trial: its tests, in a copy of the tree, until one of them fails for sure."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TextIO, TypeAlias

from .operators import Mutant

TIMEOUT = "a timeout"
NO_START = "the import of the tests"
AGAIN = 2  # more runs of a test that has failed, to see whether it does for a reason
# The last `exit` keeps the shell from becoming the command, which would have a child then.
GROUP = 'exec 3<&0; (read end <&3; kill -KILL 0) & "$@" 3<&- </dev/null; exit $?'
# Beside a folder's own tests: where the loss of what it does would be noticed too.
WIDER = {
    "access": ("http", "websocket"),
    "delivery": ("http", "websocket", "test_testing.py"),
    "eventlog": ("delivery", "management"),
    "server": ("streaming", "websocket", "whole/test_leaks.py", "whole/test_bounds.py"),
}

# Runs tests, but for some, until one fails; returns its name, TIMEOUT, NO_START, None if all pass.
Run: TypeAlias = Callable[[Sequence[str], Sequence[str]], str | None]


class Tree:
    """The repository as it is now, copied to `home`; each trial has a copy of that."""

    def __init__(self, root: Path, home: Path, seconds: float) -> None:
        self._seconds = seconds
        self._home, self.root = home, home / "base"
        unwanted = (".git", ".venv", ".hypothesis", ".*_cache", "__pycache__", "*.sqlite3")
        shutil.copytree(root, self.root, ignore=shutil.ignore_patterns(*unwanted))
        # Compiled once: a copied file keeps its time, by which Python knows that this still holds.
        compile_all = [sys.executable, "-m", "compileall", "-q", "."]
        subprocess.run(compile_all, cwd=self.root, check=True)
        self._sound: dict[str, bool] = {}
        self._lock = Lock()

    def source(self, path: str) -> str:
        """Return a file's text without a mutant."""
        return (self.root / path).read_text()

    def is_sound(self, test: str) -> bool:
        """Return whether a test passes without any mutant."""
        with self._lock:
            if test not in self._sound:
                with self.copy() as run:
                    self._sound[test] = run([test], ()) is None
            return self._sound[test]

    @contextmanager
    def copy(self, mutant: Mutant | None = None) -> Iterator[Run]:
        """Give a way to run tests in a copy with the mutant."""
        with tempfile.TemporaryDirectory(dir=self._home, ignore_cleanup_errors=True) as copy:
            root = Path(copy, "tree")
            shutil.copytree(self.root, root)
            if mutant is not None:
                (root / mutant.path).write_text(mutant.apply(self.source(mutant.path)))
            yield lambda tests, without: _run(root, tests, without, self._seconds)


def stages(root: Path, path: str, expected: Sequence[str] = ()) -> list[list[str]]:
    """Return the test files to run for a changed file: the expected ones, or those that mirror it,
    and then the wider list."""
    inside = Path(path).relative_to("realtime").with_suffix("")
    if inside.name == "__init__":
        inside = inside.parent
    folder = root / "tests" / inside.parent
    mirror = [*folder.glob(f"test_{inside.name}.py"), *folder.glob(f"test_{inside.name}_*.py")]
    places = [root / "tests" / name for name in WIDER.get(inside.parts[0], ())]
    if inside.parent.parts:
        places.insert(0, folder)
    files = mirror + [
        file
        for place in places
        for file in ([place] if place.is_file() else sorted(place.rglob("test_*.py")))
    ]
    first = list(expected) or [file.relative_to(root).as_posix() for file in mirror]
    names = dict.fromkeys(file.relative_to(root).as_posix() for file in files)
    wider = [name for name in names if name not in first]
    return [stage for stage in (first, wider) if stage]


def judge(run: Run, is_sound: Callable[[str], bool], stages: Sequence[Sequence[str]]) -> str | None:
    """Return the test that kills a mutant, or TIMEOUT or NO_START; None if it survives.

    A test that fails is run again, with the mutant and without it: if it is flaky, or fails anyway,
    the others decide.
    """
    unsure: list[str] = []
    for tests in stages:
        while failed := run(tests, unsure):
            if failed in (TIMEOUT, NO_START):
                return failed
            if any(run([failed], ()) for _ in range(AGAIN)) and is_sound(failed):
                return failed
            unsure.append(failed)
    return None


def start_group(
    command: Sequence[str], root: Path, environ: Mapping[str, str], output: TextIO
) -> "subprocess.Popen[bytes]":
    """Start a command in a process group of its own, to be used as a context manager.

    The group, with all that the command has started in it, is killed at the end of the block, and
    when this process ends, however it does: the group's shell sees its standard input end.
    """
    shell = ["sh", "-c", GROUP, "sh", *command]
    return subprocess.Popen(
        shell,
        cwd=root,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _run(root: Path, tests: Sequence[str], without: Sequence[str], seconds: float) -> str | None:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider"]
    command += ["--tb=no", "-rfE", *(f"--deselect={test}" for test in without), *tests]
    environ = {**os.environ, "COLUMNS": "1000"}  # or long names would be cut
    log = root.parent / "log"
    with log.open("w") as output, start_group(command, root, environ, output) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return TIMEOUT
    if process.returncode in (0, 5):  # 5: there are none but those in `without`
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log.read_text(), re.MULTILINE)
    return failed[1] if failed else NO_START
