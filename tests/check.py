"""Lint, types, migrations and tests in one command: `python -m tests.check [options of pytest]`.

CI runs the same. All steps are run, also after one that failed; the exit code is 1 if any did.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
STEPS: Final = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    "migrations": ("manage", "makemigrations", "--check", "--dry-run", "--skip-checks"),
    "tests": ("pytest",),
}


def main(arguments: Sequence[str]) -> int:
    """Run every step, hand `arguments` to the last, pytest. Return the exit code."""
    failed = []
    for name, step in STEPS.items():
        command = [sys.executable, "-m", *step, *(arguments if name == "tests" else ())]
        print(f"== {name}: python {' '.join(command[1:])}", flush=True)
        begun = time.monotonic()
        environment = {"SECRET_KEY": "only for tests", **os.environ}
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            failed.append(name)
        print(f"   {time.monotonic() - begun:.0f} s", flush=True)
    print(f"== failed: {', '.join(failed)}" if failed else "== all passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
