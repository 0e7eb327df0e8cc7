"""The demo in a process of its own, started as a person starts it: with an empty environment."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from ..support.servers import ROOT, START_SECONDS, wait_until


class Demo:
    """`manage.py demo`, on a free port unless one is given."""

    def __init__(self, data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None):
        self.output = ""
        self.data_dir = data_dir
        self._env = {"DATA_DIR": str(data_dir), **(env or {})}
        command = [sys.executable, "manage.py", "demo", "--port", "0", "--items", "3", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> "Demo":
        """Until it serves."""
        wait_until(
            lambda: "Ctrl-C" in self.output or self.process.poll() is not None,
            START_SECONDS,
            "the start",
        )
        assert self.process.poll() is None, self.output
        return self

    @property
    def url(self) -> str:
        found = re.search(r"Serving on (http://\S+) with", self.output)
        assert found, self.output
        return found[1]

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 80

    def passwords(self) -> dict[str, str]:
        """What was printed, by user."""
        return dict(
            re.findall(r"^  (admin|alice|bob) +((?:[a-z2-7]{5}-?){4})\b", self.output, re.M)
        )

    def manage(self, *arguments: str) -> str:
        """Another command beside it, as from a second terminal."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def worker(self) -> int:
        """The process that serves; there is one, and for a while that of before a restart."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

        def pids() -> list[str]:
            return children.read_text().split()

        wait_until(lambda: len(pids()) == 1, 20, "the end of the other workers")
        return int(pids()[0])

    def kill(self) -> None:
        """SIGKILL for all of it, as when the machine loses power."""
        for pid in (self.worker(), self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self._end()

    def _end(self) -> int:
        try:
            code = self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"It did not end:\n{self.output}") from None
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line


@contextmanager
def running_demo(
    data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Demo]:
    """A demo that serves, for the length of a with block."""
    demo = Demo(data_dir, *arguments, env=env)
    try:
        yield demo.wait()
    finally:
        demo.stop()


def csrf_token(page: str) -> str:
    """The token in a page's form."""
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found, page
    return found[1]
