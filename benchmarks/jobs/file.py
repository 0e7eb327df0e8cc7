"""A large file over plain HTTP: MiB per second, processor time and memory. nginx for reference."""

import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Final

from ..contestants import TOKEN, Contestant
from ..download import MIB, Count, connect, discard
from ..load import Tally
from ..machine import Load, ServerProcess, free_port
from ..plan import Measurement, Plan
from ..wire import BodyParser, get_request

ROUNDS: Final = 3
NAME: Final = "large.bin"
SMALL: Final = "small.bin"  # downloaded first, for what is loaded once
NGINX: Final = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CONFIGURATION: Final = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /download/ {{ alias {files}/; }}
    }}
}}
"""


def run(contestant: Contestant, plan: Plan) -> Iterator[Measurement]:
    """The same file from the contestant and from nginx in turns."""
    files = Path(contestant.env["FILES_DIR"])
    make_files(files, plan.file_mib)
    with ExitStack() as stack:
        server = stack.enter_context(contestant.serving(plan.server_core))
        token = next(contestant.headers(TOKEN, 1))
        if not server.offers(f"/download/{SMALL}", token):
            return
        ours = Downloads(server.process, token, plan.file_mib)
        reference = None
        if NGINX is not None:
            process = stack.enter_context(nginx(files, plan.server_core))
            reference = Downloads(process, b"", plan.file_mib)
        for _ in range(ROUNDS):
            ours.once()
            if reference is not None:
                reference.once()
    yield from ours.figures(contestant.label)
    if reference is not None:
        if contestant.name == "ours":  # once in each turn of the contestants
            yield from reference.figures("nginx")
        shares = [a / b for a, b in zip(ours.rates, reference.rates, strict=True)]
        title = f"File of {plan.file_mib:,} MiB, of nginx's rate"
        yield Measurement(title, contestant.label, 100 * median(shares), "%")


class Downloads:
    """One server's downloads, one after the other."""

    def __init__(self, process: ServerProcess, headers: bytes, mib: int) -> None:
        self.rates: list[float] = []  # MiB per second
        self._process = process
        self._headers = headers
        self._mib = mib
        self._tally = Tally()
        self._cpu: list[float] = []
        self._loads: list[Load] = []
        download(process.port, SMALL, headers, 1)
        self._before = process.forget_peak()
        self._peak = 0

    def once(self) -> None:
        """Download it."""
        cpu = self._process.cpu()
        with Load(self._process) as load:
            tally, seconds = download(self._process.port, NAME, self._headers, self._mib)
        self._cpu.append(self._process.cpu() - cpu)
        self._peak = self._process.peak_memory()
        self._loads.append(load)
        self._tally.add(tally)
        self.rates.append(tally.received / seconds)

    def figures(self, label: str) -> Iterator[Measurement]:
        """The medians, and the growth by all of them."""
        title = f"File of {self._mib:,} MiB"
        yield Measurement(
            title,
            label,
            median(self.rates),
            "MiB/s",
            tally=self._tally,
            server_load=mean(load.server for load in self._loads),
            client_load=mean(load.client for load in self._loads),
        )
        metric = f"{title}, processor time of the worker"
        yield Measurement(metric, label, mean(self._cpu) * 1_000, "ms", "less")
        growth = (self._peak - self._before) / MIB
        yield Measurement(f"{title}, memory growth", label, growth, "MiB", "less")


def download(port: int, name: str, headers: bytes, mib: int) -> tuple[Tally, float]:
    """Read it and throw it away; the seconds it took."""
    parser, count = BodyParser(), Count()
    with connect(port) as sock:
        started = time.perf_counter()
        sock.sendall(get_request(f"127.0.0.1:{port}", f"/download/{name}", headers))
        while not parser.opened and (data := sock.recv(65_536)):
            count.feed(parser.feed(data))
        discard(sock, parser, count)
    return count.tally(mib, ended=parser.ended), time.perf_counter() - started


def make_files(folder: Path, mib: int) -> None:
    """Holes of the right size, read once: what the disk does is no part of this."""
    folder.mkdir(exist_ok=True)
    for name, size in ((SMALL, 1), (NAME, mib)):
        path = folder / name
        with path.open("ab") as file:
            file.truncate(size * MIB)
        with path.open("rb") as file:
            while file.read(MIB):
                pass


@contextmanager
def nginx(files: Path, core: int) -> Iterator[ServerProcess]:
    """nginx with one worker on the core, serving the folder."""
    port, folder = free_port(), files.parent / "nginx"
    folder.mkdir(exist_ok=True)
    # Started by root, its worker would be somebody who may not look into the folder.
    user = "" if os.getuid() else f"user {pwd.getpwuid(0).pw_name};"
    path = folder / "nginx.conf"
    path.write_text(CONFIGURATION.format(folder=folder, user=user, port=port, files=files))
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(path)]
    process = ServerProcess(command, dict(os.environ), port, core, folder)
    try:
        process.wait_until_it_answers()
        yield process
    except Exception as error:
        error.add_note(f"nginx had said:\n{process.tail()}")
        raise
    finally:
        process.stop()
