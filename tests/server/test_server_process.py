"""A server in a child process: for Channels' test cases, and Daphne's."""

import json
import subprocess
import sys
from typing import Any

from ..support.servers import ROOT, environment
from .apps import application

# In a process of its own, since it forks: this one has threads.
SCRIPT = """
import json
from urllib.request import urlopen
from realtime.server.server_process import ServerProcess
from tests.server import test_server_process as here

process = ServerProcess("127.0.0.1", here.served, kwargs=here.OPTIONS)
process.start()
assert process.ready.wait(30)
with urlopen(f"http://127.0.0.1:{process.port.value}/parts", b"abcdefgh", 30) as answer:
    found = [answer.read().decode(), answer.headers["server"]]
process.terminate()
process.join(30)
found.append(process.errors.empty())

process = ServerProcess("127.0.0.1", here.unserved)
process.start()
error, text = process.errors.get(timeout=30)
process.join(30)
print(json.dumps([*found, repr(error), "in unserved" in text]))
"""


OPTIONS = {"server_name": "me", "request_buffer_size": 3}


def served() -> Any:
    return application


def unserved() -> Any:
    raise ZeroDivisionError


def test_it_serves_by_its_options_and_tells_what_keeps_it_from_starting() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["abc def gh", "me", True, "ZeroDivisionError()", True]
