"""Twenty fixed schedules, by the command; and that its report can fail."""

import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import httpx
import pytest

from ..main_job import WebSocketSubscriber
from ..support.servers import ROOT, wait_until
from .schedule import Outcome, Publisher, compare
from .site import INSIDE


@pytest.mark.timeout(180)
def test_nothing_is_lost_doubled_or_disordered_whatever_breaks() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--schedules", "20", "--processes", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_clock_is_set_wrong_and_right_again(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    code = "import datetime as d, time\nwhile input(): print(d.datetime.now().timestamp())"
    env = {**os.environ, "PYTHONPATH": str(INSIDE), "CHAOS_CLOCK": str(file)}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], env=env, text=True, stdin=PIPE, stdout=PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def is_wrong() -> bool:
            process.stdin.write("and now?\n")
            process.stdin.flush()
            return float(process.stdout.readline()) < time.time() - 1800

        assert not is_wrong()
        file.write_text("-3600")
        wait_until(is_wrong)
        file.write_text("0")
        wait_until(lambda: not is_wrong())
        process.kill()


LOG = [("e-1", "a"), ("e-2", "b"), ("e-3", "c")]


@pytest.mark.parametrize(
    ("acknowledged", "log", "ids", "reset_at", "wrong"),
    [
        ({"a": "e-1", "c": "e-3"}, LOG, ["e-1", "e-2", "e-3"], None, []),
        ({"a": "e-1"}, LOG, ["e-9", "e-2", "e-3"], 1, []),
        ({}, LOG, ["e-1"], 1, []),
        ({"d": "e-4"}, LOG, ["e-1", "e-2", "e-3"], None, ["lost"]),
        ({"a": "e-2"}, LOG, ["e-1", "e-2", "e-3"], None, ["lost"]),
        ({}, [*LOG, ("e-4", "a")], ["e-1", "e-2", "e-3", "e-4"], None, ["doubled"]),
        ({}, LOG, ["e-1", "e-3"], None, ["lost"]),
        ({}, LOG, ["e-9", "e-1", "e-3"], 1, ["lost"]),
        ({}, LOG, ["e-1", "e-2", "e-3", "e-4"], None, ["lost"]),
        ({}, LOG, ["e-1", "e-2", "e-2", "e-3"], None, ["doubled"]),
        ({}, LOG, ["e-2", "e-1", "e-3"], None, ["disordered"]),
    ],
)
def test_an_outcome_names_what_differs_from_the_log(
    acknowledged: dict[str, str],
    log: list[tuple[str, str]],
    ids: list[str],
    reset_at: int | None,
    wrong: list[str],
) -> None:
    outcome = Outcome(0, [])
    publisher = Publisher(httpx.AsyncClient(), "", "")
    publisher.acknowledged = {number: ("t", i) for number, i in acknowledged.items()}
    reader = WebSocketSubscriber("", "t", "", ids=ids)
    if reset_at is not None:
        reader.resets, reader.reset_at = 1, reset_at
    compare(outcome, log, "t", [publisher], [reader])
    kinds = ("lost", "doubled", "disordered")
    assert [kind for kind in kinds if getattr(outcome, kind)] == wrong
    assert bool(outcome.wrong) == bool(wrong)


def test_a_late_recovery_is_wrong() -> None:
    assert not Outcome(0, [], recovery=9.9).wrong
    assert Outcome(0, [], recovery=10.1).wrong
    assert Outcome(0, [], hung=["nobody was served"]).wrong
