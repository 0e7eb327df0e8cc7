"""Daphne's options and endpoints still do what they did."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from .support import ROOT, Client, Worker, eventually

Start = Callable[..., Worker]


def test_daphnes_own_endpoint_with_a_backlog_of_thousands() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "realtime.server", "-p", str(port), "tests.server.apps:application"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def answers() -> bytes:
            try:
                with Client(("127.0.0.1", port)) as client:
                    client.request("/hello", "Connection: close")
                    return client.response().body
            except ConnectionError:
                return b""

        eventually(lambda: answers() == b"hello", 15)
        process.terminate()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_is_an_error_not_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "realtime.server", "-p", port, "tests.server.apps:application"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
        )
    assert done.returncode == 1
    assert "Listen failure" in done.stderr
    assert "Traceback" not in done.stderr


def test_proxy_headers_and_root_path(start: Start) -> None:
    worker = start("--proxy-headers", "--root-path", "/sub", "--server-name", "me")
    with worker.client() as client:
        client.request(
            "/scope", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", "X-Forwarded-Proto: https", "X: y"
        )
        response = client.response()
        scope = json.loads(response.body)
    assert (scope["client"], scope["scheme"], scope["root_path"]) == (
        ["1.2.3.4", 0],
        "https",
        "/sub",
    )
    assert response.headers["server"] == "me"


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
    assert process.wait(15) == 0
