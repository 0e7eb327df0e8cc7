"""The command line: Daphne's options, the limits, and the pipes of a supervisor."""

import pytest

from realtime.server.cli import CommandLineInterface


def test_daphnes_options_and_the_limits() -> None:
    options = CommandLineInterface().parser.parse_args(
        ["--fd", "3", "--ping-interval", "7", "--max-connections", "9", "a:b"]
    )
    assert (options.file_descriptor, options.ping_interval, options.max_connections) == (3, 7, 9)
    assert options.ping_timeout == 20


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CommandLineInterface().parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for option in ("--proxy-headers", "--drain-window", "--ready-fd", "--keep-alive-timeout"):
        assert option in text
