"""A worker notices that it gets no more memory; what is done then: test_supervisor."""

import asyncio
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from realtime.server import memory

SCRIPT = """
import resource
from realtime.server.memory import is_exhausted
print(is_exhausted())
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
print(is_exhausted())
resource.setrlimit(resource.RLIMIT_AS, (limit + memory_for_one, resource.RLIM_INFINITY))
print(is_exhausted(), is_exhausted())
"""


def test_it_is_exhausted_when_the_system_gives_no_more() -> None:
    script = SCRIPT.replace("memory_for_one", str(memory.PROBE_BYTES * 3 // 2))
    ran = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert ran.stdout.decode().split() == ["False", "True", "False", "False"]


@pytest.fixture
def memory_left(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    left: list[bool] = []
    monkeypatch.setattr(memory, "is_exhausted", lambda: left and not left.pop(0))
    monkeypatch.setattr(memory, "PROBE_SECONDS", 0.001)
    return left


async def test_each_probe_that_finds_none_is_told(memory_left: list[bool]) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    memory_left += [True, False, True, False, False]
    memory.watch(asyncio.get_running_loop(), write)
    while memory_left:
        await asyncio.sleep(0.001)
    assert os.read(read, 100) == b"000"
    os.close(read)
    memory_left += [False, True]  # and nobody reads it any more
    while memory_left:
        await asyncio.sleep(0.001)
    os.close(write)


async def test_no_memory_to_look_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "call_later", raise_memory_error)
        memory.watch(loop, write)
    assert os.read(read, 100) == b"0"
    os.close(read)
    os.close(write)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bytes]]:
    """What is said of the memory, while nobody else's hooks hear of the errors."""
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    monkeypatch.setattr(threading, "excepthook", heard.append)
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    loop = asyncio.new_event_loop()
    loop.default_exception_handler = heard.append  # type: ignore[method-assign]
    memory.note_errors(loop, write)

    def run(callback: Callable[[], object]) -> bytes:
        heard.clear()
        callback()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert heard, "what heard of errors before hears of them still"
        with suppress(BlockingIOError):
            return os.read(read, 100)
        return b""

    run.loop = loop  # type: ignore[attr-defined]
    yield run
    loop.close()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(("error", "said"), [(MemoryError, b"0"), (ValueError, b"")])
def test_error_that_ends_a_thread_or_a_callback_is_told(told: Any, error: Any, said: bytes) -> None:
    def fail() -> None:
        raise error

    class Closing:
        def __del__(self) -> None:
            raise error

    def in_thread() -> None:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    assert told(in_thread) == said
    assert told(lambda: told.loop.call_soon(fail)) == said
    assert told(lambda: Closing() and None) == said


def raise_memory_error(*_: object) -> None:
    raise MemoryError


def test_other_errors_of_the_system_are_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "on purpose")

    monkeypatch.setattr(memory.mmap, "mmap", fail)
    found = {}
    for number in (errno.ENOMEM, errno.EAGAIN, errno.EPERM):
        found[number] = memory.is_exhausted()
    assert found == {errno.ENOMEM: True, errno.EAGAIN: True, errno.EPERM: False}
