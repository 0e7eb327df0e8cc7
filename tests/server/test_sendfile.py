"""Files by the kernel: the spec's message, the part that stands for a file, backpressure."""

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from realtime.server.sendfile import FilePart, copy, in_memory, read, span

from ..support.attempts import three_tries
from ..support.streaming import open_files
from .support import Worker, eventually

SIZE = 3_000_000
BODY = os.urandom(SIZE)
APP = "tests.server.file_apps"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "body.bin"
    path.write_bytes(BODY)
    return path


@pytest.fixture(scope="module")
def files() -> Iterator[Worker]:
    worker = Worker(app=APP)
    worker.expected = ["The file ended 10 bytes", "longer than its Content-Length"]
    yield worker
    worker.stop()


@pytest.mark.parametrize("way", ["message", "part"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(("offset", "count"), [(0, SIZE), (1000, 2_000_000), (SIZE - 1, 1), (5, 0)])
def test_a_span_of_a_file(files, path, way, framing, offset, count):
    with files.client() as client:
        for _ in range(2):  # the connection is fit for another request
            query = f"path={path}&way={way}&framing={framing}&offset={offset}&count={count}"
            client.request(f"/file?{query}")
            response = client.response()
            assert response.body == b"<" + BODY[offset : offset + count] + b">"
            assert ("content-length" in response.headers) == (framing == "length")


def test_without_offset_and_count_the_rest_of_the_file(files, path):
    with files.client() as client:
        client.request(f"/rest?path={path}&seek=2999990")
        assert client.response().body == BODY[2_999_990:]


def test_head_sends_none_of_it(files, path):
    with files.client() as client:
        client.request(f"/file?path={path}&way=message&framing=length&count={SIZE}", method="HEAD")
        assert client.response(head=True).headers["content-length"] == str(SIZE + 2)
        client.request("/hello")
        assert client.response().body == b"hello"


def test_an_old_client_gets_it_up_to_the_end_of_the_connection(files, path):
    with files.client() as client:
        query = f"path={path}&way=message&framing=chunked&count={SIZE}"
        client.send(f"GET /file?{query} HTTP/1.0\r\n\r\n".encode())
        client.head()
        assert client.rest() == b"<" + BODY + b">"


@pytest.mark.parametrize("way", ["message", "part"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_file_that_is_too_short_cuts_the_connection(files, path, way, framing):
    with files.client() as client:
        query = f"path={path}&way={way}&framing={framing}&count={SIZE + 10}"
        client.request(f"/file?{query}")
        client.head()
        rest = client.rest()
    assert BODY[-1000:] in rest
    assert not rest.endswith(b"0\r\n\r\n")
    eventually(lambda: "The file ended 10 bytes" in files.text)


def test_more_than_the_length_said_is_an_error(files, path):
    with files.client() as client:
        client.request(f"/toolong?path={path}")
        client.head()
        assert client.rest() == b""
    eventually(lambda: "longer than its Content-Length" in files.text)


def test_a_client_that_stalls_is_waited_for_and_one_that_leaves_noticed(start, path):
    files = start(app=APP)
    with path.open("r+b") as file:
        file.truncate(2**30)
    with files.client(receive_buffer=4096) as client:
        client.request(f"/file?path={path}&way=message&framing=length&count={2**30}")
        client.head()
        before = files.rss()
        time.sleep(0.5)
        assert "sent" not in files.status()["events"]
        assert files.rss() - before < 4_000_000
    eventually(lambda: {"sent", "cancelled"} & set(files.status()["events"]))


def test_the_event_loop_goes_on_beside_a_fast_client(files, path):
    with path.open("r+b") as file:
        file.truncate(2**30)

    def download() -> None:
        with files.client() as client:
            client.request(f"/file?path={path}&way=message&framing=length&count={2**30}")
            client.head()
            # The first of the body may have come along with the head.
            longest, left, asked = 0.0, 2**30 - len(client.buffer), 0
            while left > 0:
                data = client.sock.recv(1 << 20)
                assert data
                left -= len(data)
                if left < 2**30 - asked * 2**27:
                    asked += 1
                    started = time.monotonic()
                    assert files.get("/hello") == b"hello"
                    longest = max(longest, time.monotonic() - started)
            assert asked >= 8
            assert longest < 0.5

    three_tries(download)


def test_what_sendfile_can_not_copy_is_read(files):
    status = f"/proc/{os.getpid()}/status"  # has no size, and no pages
    with files.client() as client:
        client.request(f"/file?path={status}&way=message&framing=chunked&count=20")
        assert client.response().body == b"<" + Path(status).read_bytes()[:20] + b">"


@pytest.mark.parametrize("call", ["copy", "read"])
async def test_a_copy_that_is_cancelled_before_it_has_a_thread_keeps_no_descriptor(path, call):
    loop, busy = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    with path.open("rb") as file, socket.socket() as out:
        number, inode = file.fileno(), f"socket:[{os.fstat(out.fileno()).st_ino}]"
        waiting = loop.run_in_executor(None, busy.wait)
        work = copy(out.fileno(), number, 0, 5) if call == "copy" else read(number, 0, 5)
        task = asyncio.create_task(work)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    busy.set()
    await waiting
    await loop.shutdown_default_executor()
    assert open_files(os.getpid(), str(path)) == 0
    assert open_files(os.getpid(), inode) == 0


async def test_a_copy_for_which_there_are_not_enough_descriptors_keeps_none(path, monkeypatch):
    real, made = os.dup, []

    def dup(number: int) -> int:
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(real(number))
        return made[0]

    monkeypatch.setattr(os, "dup", dup)
    with path.open("rb") as file, pytest.raises(OSError, match="Too many"):
        await copy(file.fileno(), file.fileno(), 0, 5)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])


def test_it_is_offered_on_plain_sockets_alone(files):
    assert b"http.response.zerocopysend" in files.get("/extensions")


def test_a_part_is_an_empty_one():
    part = FilePart(3, 0, 10)
    assert part == b""
    assert not part
    assert part.revoke()
    assert not part.take()
    taken = FilePart(3, 0, 10)
    assert taken.take()
    assert not taken.revoke()


def test_a_span_moves_the_files_position_as_reading_would(path):
    with path.open("rb") as file:
        os.lseek(file.fileno(), 10, os.SEEK_SET)
        assert span({"file": file, "count": 5}) == (file.fileno(), 10, 5)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 15
        assert span({"file": file, "offset": 1}) == (file.fileno(), 1, SIZE - 1)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 15


def test_what_is_not_in_memory(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**22)
    with path.open("rb") as file:
        os.pread(file.fileno(), 2**20, 0)
        assert in_memory(file.fileno(), 0, 1000)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    read, write = os.pipe()
    assert not in_memory(read, 0, 10)
    os.close(read)
    os.close(write)
