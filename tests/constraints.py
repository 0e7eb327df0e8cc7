"""Write constraints.txt, the versions that are installed here: `python -m tests.constraints`.

It names the packages of both requirements.txt, and all that those need. Run it with the oldest
Python that is tested, in a new environment, when the tests have passed there.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from benchmarks.page.counts import closure

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = (ROOT / "requirements.txt", ROOT / "benchmarks" / "requirements.txt")
FILE: Final = ROOT / "constraints.txt"
HEAD: Final = """\
# The versions that were tested together, with Python {python}, on Linux:
#     pip install -c constraints.txt -r requirements.txt
# Written by `python -m tests.constraints`.
"""


def required(*files: Path) -> Iterator[Requirement]:
    """Yield what the files ask for."""
    for file in files:
        for line in file.read_text().splitlines():
            if text := line.partition("#")[0].strip():
                yield Requirement(text)


def constraints(*files: Path) -> str:
    """Return the text of constraints.txt. Raise PackageNotFoundError if a package is missing."""
    roots = [need for need in required(*files) if not need.marker or need.marker.evaluate()]
    names = closure(str(need) for need in roots) | {need.name for need in roots}
    lines = [f"{name}=={version(name)}\n" for name in sorted(names)]
    return HEAD.format(python="{}.{}".format(*sys.version_info)) + "".join(lines)


if __name__ == "__main__":
    FILE.write_text(constraints(*REQUIREMENTS))
