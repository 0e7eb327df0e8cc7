"""A large file over plain HTTP: MiB per second, processor time and memory. nginx for reference."""

import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..contestants import TOKEN, Contestant
from ..download import MIB, Count, connect, discard
from ..load import Tally
from ..machine import Load, ServerProcess, free_port
from ..plan import Measurement, Plan
from ..wire import BodyParser, get_request

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
    """The same file from the contestant and, right after it, from nginx."""
    if not contestant.has_streams:
        return
    files = Path(contestant.env["FILES_DIR"])
    make_files(files, plan.file_mib)
    headers = next(contestant.headers(TOKEN, 1))
    with contestant.serving(plan.server_core) as server:
        rate, figures = measured(server.process, contestant.label, headers, plan.file_mib)
    yield from figures
    if NGINX is not None:
        with nginx(files, plan.server_core) as process:
            other, figures = measured(process, "nginx", b"", plan.file_mib)
        if contestant.name == "ours":  # once in each turn
            yield from figures
        percent = 100 * rate / other
        yield Measurement(f"{_title(plan.file_mib)}, of nginx's", contestant.label, percent, "%")


def _title(mib: int) -> str:
    return f"File of {mib:,} MiB"


def measured(
    process: ServerProcess, label: str, headers: bytes, mib: int
) -> tuple[float, list[Measurement]]:
    """Download it: MiB per second, and all the figures."""
    download(process.port, SMALL, headers, 1)
    before, cpu = process.forget_peak(), process.cpu()
    with Load(process) as load:
        tally, seconds = download(process.port, NAME, headers, mib)
    cpu, growth = process.cpu() - cpu, process.peak_memory() - before
    rate, title = tally.received / seconds, _title(mib)
    whole = Measurement(title, label, rate, "MiB/s", tally=tally)
    whole.server_load, whole.client_load = load.server, load.client
    return rate, [
        whole,
        Measurement(f"{title}, processor time of the worker", label, cpu * 1_000, "ms", "less"),
        Measurement(f"{title}, memory growth", label, growth / MIB, "MiB", "less"),
    ]


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
