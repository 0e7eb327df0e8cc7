"""The files in which processes count: exact whatever dies, and deaf to what is not theirs."""

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.metrics import counter_files
from realtime.metrics.cells import SIZE
from realtime.metrics.counter_files import CounterFiles

from .support import Process, own_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


@pytest.fixture
def processes(folder: Path) -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for each in started:
        each.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.counters"))


def test_sums_are_exact_before_and_after_a_kill(folder, processes):
    a, b = Process(folder, least=3), Process(folder, least=2)
    processes += [a, b]
    a.count(10)
    b.count(5)
    files = CounterFiles(folder)
    assert files.read() == {"a_total": 17, "now": 15, "least": 2}
    b.count(100)
    b.kill()
    assert files.read() == {"a_total": 117, "now": 10, "least": 3}
    assert len(names(folder)) == 1
    assert files.read() == {"a_total": 117, "now": 10, "least": 3}
    a.kill()
    assert files.read() == CounterFiles(folder).read() == {"a_total": 117}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert (modes, stat.S_IMODE(folder.stat().st_mode)) == ({0o600}, 0o700)


def test_a_reader_that_is_killed_before_it_removes_a_file_has_it_counted_once(
    folder, processes, monkeypatch
):
    processes.append(Process(folder))
    processes[0].count(4)
    processes[0].kill()
    data = (folder / names(folder)[0]).read_bytes()
    name = names(folder)[0]
    assert CounterFiles(folder).read() == {"a_total": 5}
    (folder / name).write_bytes(data)  # as if it had not come so far
    monkeypatch.setattr(counter_files, "MAX_FILES", 0)
    assert CounterFiles(folder).read() == {"a_total": 5}
    monkeypatch.undo()
    processes.append(Process(folder))
    processes[1].kill()
    assert CounterFiles(folder).read() == {"a_total": 6}
    assert names(folder) == []


def test_what_is_not_ours_is_left_out_and_said_once(folder, processes, caplog, tmp_path):
    processes.append(Process(folder))
    (folder / "short.counters").write_bytes(b"x")
    (folder / "noise.counters").write_bytes(os.urandom(SIZE))
    with (folder / "huge.counters").open("wb") as file:
        file.truncate(2**40)
    (folder / "folder.counters").mkdir()
    os.mkfifo(folder / "pipe.counters")
    (tmp_path / "elsewhere").write_bytes(bytes(SIZE))
    (folder / "link.counters").symlink_to(tmp_path / "elsewhere")
    files = CounterFiles(folder)
    with caplog.at_level("WARNING"):
        assert files.read() == files.read() == {"a_total": 1, "now": 0, "least": 0}
    left_out = [message.partition(" is ")[0] for message in caplog.messages]
    odd = ("folder", "huge", "noise", "pipe", "short")
    assert sorted(left_out) == [f"{folder / name}.counters" for name in odd]
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "total",
    [
        b"",
        b"[]",
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"counts": {"a_total": -1}, "folded": []}',
        b'{"counts": {"a_total": true}, "folded": []}',
        b'{"counts": {"a_total": 1e300}, "folded": []}',
        json.dumps({"counts": {f"n{n}": 1 for n in range(9_999)}, "folded": []}).encode(),
        b" " * 2**21,
    ],
    ids=range(9),
)
def test_a_total_that_is_none_begins_anew(folder, total):
    folder.mkdir(mode=0o700)
    (folder / "total.json").write_bytes(total)
    assert CounterFiles(folder).read() == {}


def test_two_folders_are_two_hosts(tmp_path, processes):
    processes += [Process(tmp_path / "a"), Process(tmp_path / "b")]
    processes[0].count(1)
    assert CounterFiles(tmp_path / "a").read()["a_total"] == 2
    assert CounterFiles(tmp_path / "b").read()["a_total"] == 1


def disk_full(*args: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_has_the_process_count_in_memory(folder, monkeypatch, caplog):
    monkeypatch.setattr(os, "pwrite", disk_full)
    with own_series(), caplog.at_level("WARNING"):
        assert not CounterFiles(folder).open()
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.messages[0]
    assert names(folder) == []


def test_where_the_total_can_not_be_written_nothing_is_lost(folder, processes, caplog):
    processes.append(Process(folder))
    processes[0].count(4)
    processes[0].kill()
    (folder / "total.json.new").mkdir()  # as a full disk, in the way of a new total
    files = CounterFiles(folder)
    with caplog.at_level("WARNING"):
        assert files.read() == files.read() == {"a_total": 5}
    assert len(caplog.messages) == len(names(folder)) == 1
    (folder / "total.json.new").rmdir()
    assert files.read() == files.read() == {"a_total": 5}
    assert names(folder) == []


def test_files_of_ended_processes_do_not_pile_up_where_nobody_asks(folder, processes):
    for _ in range(3):
        processes.append(Process(folder))
        processes[-1].kill()
        assert len(names(folder)) == 1
    assert CounterFiles(folder).read() == {"a_total": 3}


FORK = """
import os, sys
from pathlib import Path
from realtime.metrics.cells import Kind, cells
from realtime.metrics.counter_files import CounterFiles
cells.values[cells.allot(Kind.SUM, "now")] = 1
CounterFiles(Path(sys.argv[1])).open()
if os.fork():
    os._exit(0)
print(flush=True)
sys.stdin.read()
"""


def test_process_has_ended_though_one_that_it_forked_has_not(folder):
    command = [sys.executable, "-c", FORK, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.wait()
        assert CounterFiles(folder).read() == {}
        assert names(folder) == []


def test_a_folder_that_can_not_be_is_none(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "file/below", "link"):
        assert not CounterFiles(tmp_path / name).open()
    assert len(caplog.messages) == 3


def test_a_folder_that_others_may_write_to_is_closed_to_them(folder, processes):
    folder.mkdir()
    folder.chmod(0o777)
    processes.append(Process(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_reader_that_does_not_end_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr(counter_files, "LOCK_SECONDS", 0.05)
    one, other = CounterFiles(folder), CounterFiles(folder)
    folder.mkdir(mode=0o700)
    with one._locked(), pytest.raises(TimeoutError):
        other.read()
    assert other.read() == {}
