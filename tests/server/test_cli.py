"""The command line: Daphne's options, the limits, and the pipes of a supervisor."""

import asyncio
import os
import subprocess
import sys

import pytest

from realtime.server.cli import CommandLineInterface, _beat

from .support import ROOT


def test_daphnes_options_and_the_limits() -> None:
    parser = CommandLineInterface().parser
    options = parser.parse_args(
        ["--fd", "3", "--ping-interval", "7", "--max-connections", "9", "a:b"]
    )
    assert (options.file_descriptor, options.ping_interval, options.max_connections) == (3, 7, 9)
    assert (options.ping_timeout, parser.parse_args(["a:b"]).ping_interval) == (15, 15)


@pytest.mark.parametrize("option", [["--ping-interval", "0"], ["--ping-timeout", "-1"]])
def test_pings_take_time(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CommandLineInterface().run([*option, "no.such:application"])
    assert "takes at least 1 s" in capsys.readouterr().err


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CommandLineInterface().parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for option in ("--proxy-headers", "--drain-window", "--ready-fd", "--keep-alive-timeout"):
        assert option in text


def test_the_worker_stops_when_its_parent_is_gone() -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "realtime.server", "-p", "0", "--parent-fd", str(read)),
            "tests.server.apps:application",
        ],
        cwd=ROOT,
        pass_fds=[read],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read)
    os.close(write)
    assert process.wait(30) == 0


async def test_the_pipe_to_a_supervisor_that_has_gone_keeps_its_number() -> None:
    """Another file would get it, and what is said of the memory."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.close(read)
    _beat(asyncio.get_running_loop(), write)
    os.fstat(write)
    os.close(write)
