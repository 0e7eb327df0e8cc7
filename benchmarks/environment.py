"""The packages that the benchmark needs, and an environment with them for who has none.

The standard library alone is imported here: nothing else may be there.
"""

import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = (ROOT / "requirements.txt", ROOT / "benchmarks" / "requirements.txt")
HOME: Final = ROOT / "var" / "benchmarks-venv"
STAMP: Final = HOME / "requirements.sha256"  # what it was made from; written last
NAME: Final = re.compile(r"^[A-Za-z0-9][\w.-]*")


def missing() -> list[str]:
    """The packages of the requirements that this Python does not have."""
    return [name for name in dict.fromkeys(_names()) if not _is_installed(name)]


def enter() -> None:
    """Return if everything is there; else go on in the environment, made first if need be."""
    absent = missing()
    if not absent:
        return
    if sys.version_info < (3, 11):  # noqa: UP036 - a bare Python may be any
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    python = HOME / "bin" / "python"
    if Path(sys.prefix).resolve() == HOME.resolve():
        sys.exit(f"{HOME} lacks {', '.join(absent)}; remove it to have it made again.")
    print(f"Not installed here: {', '.join(absent)}.")
    if not STAMP.exists() or STAMP.read_text() != _digest():
        _make(python)
    print(f"Going on in {HOME}.", flush=True)
    os.execv(python, [str(python), "-m", "benchmarks", *sys.argv[1:]])


def _make(python: Path) -> None:
    print(f"Making {HOME}, which takes a minute or two.", flush=True)
    venv.create(HOME, with_pip=True, clear=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for file in REQUIREMENTS:
        install += ["-r", str(file)]
    if subprocess.run(install).returncode:
        sys.exit("pip could not install the requirements.")
    STAMP.write_text(_digest())


def _names() -> Iterator[str]:
    for file in REQUIREMENTS:
        for line in file.read_text().splitlines():
            if found := NAME.match(line):
                yield found[0]


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _digest() -> str:
    text = "".join(file.read_text() for file in REQUIREMENTS)
    return hashlib.sha256((sys.version + text).encode()).hexdigest()
