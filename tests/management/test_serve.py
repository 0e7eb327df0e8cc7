"""`manage.py serve`: what it refuses, and how it ends; what it does is test_supervisor's."""

import re
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest
from django.core.management.base import CommandError

from realtime.management.commands.serve import Command, embedded_redis, root_path

from ..support.servers import ROOT, SiteServer, environment, serving


def serve(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "serve", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence it says."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_without_a_secret_key(site: dict[str, str]) -> None:
    env = {**environment(site), "SECRET_KEY": ""}
    assert refusal(serve(env)).startswith("CommandError: Set SECRET_KEY")


def test_a_port_in_use(site: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in refusal(serve(environment(site), "--port", port))


@pytest.mark.parametrize(
    "words",
    [
        *(["--metrics-port", "70000"], ["--metrics-port", "-1"], ["--grace", "nan"]),
        *(["--drain-delay", "-5"], ["--start-timeout", "-5"], ["--worker-timeout", "-1"]),
        ["--memory-grace", "inf"],
    ],
)
def test_values_that_can_not_be_meant(words: list[str]) -> None:
    parser = Command().create_parser("manage.py", "serve")
    with pytest.raises(CommandError, match=f"argument {words[0]}: it takes a .*number"):
        parser.parse_args(words)


def test_a_delay_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_DRAIN_DELAY", "abc")
    parser = Command().create_parser("manage.py", "serve")
    with pytest.raises(CommandError, match="argument --drain-delay: it takes a number"):
        parser.parse_args([])
    assert parser.parse_args(["--drain-delay", "5"]).drain_delay == 5.0
    monkeypatch.setenv("REALTIME_DRAIN_DELAY", "")
    assert Command().create_parser("manage.py", "serve").parse_args([]).drain_delay == 0.0


def test_workers_that_do_not_reach_each_other(site: dict[str, str]) -> None:
    env = {**environment(site), "CHANNEL_LAYER": "memory"}
    done = serve(env, "--port", "0", "--workers", "2")
    assert refusal(done).startswith("CommandError: The worker could not start")
    assert "(realtime.E004) 2 workers, and a channel layer that does not leave" in done.stderr
    assert "HINT: Give CHANNEL_LAYERS a RedisPubSubChannelLayer, or set REALTIME" in done.stderr


def test_serve_ends_when_a_worker_takes_longer_to_start_than_allowed(site: dict[str, str]) -> None:
    done = serve(environment(site), "--port", "0", "--start-timeout", "0.05")
    assert refusal(done).startswith("CommandError: The worker could not start")
    assert re.search(r"Worker \d+ was not ready after 0\.05 s \(--start-timeout\)", done.stderr)


def test_skip_checks_serves_with_what_they_would_refuse(site: dict[str, str]) -> None:
    with serving({**site, "CHANNEL_LAYER": "memory"}, "--workers", "2", "--skip-checks") as server:
        assert len(server.worker_pids()) == 2


def test_it_serves_and_ends(server: SiteServer) -> None:
    assert httpx.get(f"{server.url}/readyz", trust_env=False).text == "ready\n"
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("workers", "env", "wanted"),
    [
        (2, {}, "REDIS_URL"),
        (2, {"CHANNEL_LAYER": "redis"}, "REDIS_URL"),
        (1, {}, None),
        (2, {"REDIS_URL": "redis://elsewhere"}, None),
        (2, {"CHANNEL_LAYER": "memory"}, None),
    ],
)
def test_workers_get_a_valkey_where_they_need_one(
    monkeypatch: pytest.MonkeyPatch, workers: int, env: dict[str, str], wanted: str | None
) -> None:
    for name in ("REDIS_URL", "CHANNEL_LAYER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert embedded_redis(workers) == wanted


@pytest.mark.parametrize("bus", ["postgres", "redis", "nats", "memory"])
def test_workers_with_another_bus_get_no_valkey(settings: Any, bus: str) -> None:
    settings.REALTIME = {"BUS": bus}
    assert embedded_redis(4) is None


def test_workers_get_the_path_that_django_has(settings: Any) -> None:
    settings.FORCE_SCRIPT_NAME = "/app"
    assert root_path() == ("--root-path", "/app")
    settings.FORCE_SCRIPT_NAME = None
    assert root_path() == ()
