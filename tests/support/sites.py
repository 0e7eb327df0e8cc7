"""Sites that several tests share, and a process that runs what a test tells it."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from .databases import new_database_url
from .servers import ROOT, TOKENS, environment, serving


def shortened(site: Mapping[str, str], constants: Mapping[str, Any], **more: str) -> dict[str, str]:
    """The environment of a site whose REALTIME settings are overridden."""
    ours = {
        "DJANGO_SETTINGS_MODULE": "tests.support.site.settings",
        "TEST_REALTIME": json.dumps(constants),
    }
    return {**site, **ours, **more}


_SHELL = """
import json, sys, django
django.setup()
from django.contrib.auth.models import User
from realtime.access.tokens import create_token
for line in sys.stdin:
    result = None
    exec(json.loads(line))
    print(json.dumps(result), flush=True)
"""


class SiteShell:
    """Another process of a site, which runs what it is told; a management command for each thing
    takes a second. It is started when it is first needed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    @cached_property
    def process(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", _SHELL],
            cwd=ROOT,
            env=environment({"DJANGO_SETTINGS_MODULE": "project.settings", **self._env}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str) -> Any:
        """Run statements; the value that they give to `result`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"This failed in the site's shell: {code}"
        return json.loads(answer)

    def make_token(self, username: str, expires_in: float | None = None) -> str:
        """A new access token of a user."""
        code = f"user = User.objects.get(username={username!r})\n"
        return str(self.run(f"{code}result = create_token(user, expires_in={expires_in})[0]"))

    def close(self) -> None:
        """End it, and see that it ends."""
        if "process" in vars(self):
            self.process.communicate(timeout=20)


@contextlib.contextmanager
def site_for_module(
    template: Mapping[str, str],
    constants: Mapping[str, Any],
    *arguments: str,
    **more: str,
) -> Iterator[SimpleNamespace]:
    """A served site that several tests share: tokens of its users, and where it is."""
    url = new_database_url(template["DATABASE_URL"])
    with tempfile.TemporaryDirectory(prefix="realtime-site-") as data:
        env = shortened({"DATABASE_URL": url, "DATA_DIR": data}, constants, **more)

        with serving(env, *arguments) as server, contextlib.closing(SiteShell(env)) as shell:
            yield SimpleNamespace(
                server=server,
                url=server.url,
                ws_url=server.ws_url,
                log=server.log,
                shell=shell,
                tokens=TOKENS,
                env=env,
            )
