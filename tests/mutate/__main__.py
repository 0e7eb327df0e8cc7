"""Changes the code, a little and in one place, and sees whether a test notices.

    python -m tests.mutate                                # 40 random mutants of the core
    python -m tests.mutate --modules hub access --count 20 --seed 7
    python -m tests.mutate --guards                       # all of guards.txt
    python -m tests.mutate --guards ticket cache          # those with one of these in the name

A mutant that survives is a test that is missing, or code that does nothing: write the one or delete
the other. Where no test could tell the difference (a constant that is tuning), say so in
equivalent.txt, with the reason. Where a comment names a race or a failure, add the lines that hold
it off to guards.txt: chance finds them too seldom. Both lists follow the code, which test_mutate
checks. A seed draws the same mutants as long as the code is the same.

Each mutant is tried in a copy of the tree: first the tests that mirror its file, then a wider list.
It is killed by a test that fails twice with it and passes without, or that does not end. Leave the
machine alone meanwhile: a test that fails for lack of time is run again, which takes longest.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from .lists import equivalents, guards
from .operators import Mutant, mutants
from .trial import Tree, judge, stages

ROOT = Path(__file__).resolve().parent.parent.parent
CORE = (
    "delivery",
    "eventlog",
    "access",
    "server/transport",
    "server/http_connection",
    "server/http_cycle",
    "server/http_body",
    "server/websocket_connection",
)


def files(names: Sequence[str]) -> list[str]:
    """Return the modules of some names (`hub`, `access`, `server/transport`), as paths.

    Raises ValueError for a name that no module or folder has.
    """
    found: dict[str, None] = {}
    for name in names:
        paths = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("realtime/**/*.py")]
        matching = [path for path in paths if f"/{name}/" in path.removesuffix(".py") + "/"]
        if not matching:
            raise ValueError(f"There is no module {name!r} in realtime/.")
        found |= dict.fromkeys(sorted(matching))
    return list(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m tests.mutate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--modules", nargs="+", default=CORE, metavar="NAME")
    parser.add_argument("--count", type=int, default=40, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--guards", nargs="*", metavar="WORD", help="instead of random mutants")
    parser.add_argument("--jobs", type=int, default=2, help="mutants on trial at once")
    parser.add_argument("--at-least", type=float, default=95.0, metavar="PERCENT")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS", help="of a run")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mutate-", ignore_cleanup_errors=True) as home:
        tree = Tree(ROOT, Path(home), options.timeout)
        with tree.copy() as run:
            if broken := run(["--collect-only", "tests"], ()):
                raise SystemExit(f"Without a mutant, `pytest --collect-only` fails: {broken}")
        if options.guards is None:
            paths = files(options.modules)
            every = [mutant for path in paths for mutant in mutants(path, tree.source(path))]
            print(f"{len(every)} mutants of {len(paths)} files, drawn with --seed {options.seed}")
            drawn = random.Random(options.seed).sample(every, min(options.count, len(every)))
            trials = [(mutant, ()) for mutant in drawn]
        else:
            words = options.guards or [""]
            trials = [
                (guard.mutant(tree.source(guard.path)), guard.tests)
                for guard in guards()
                if any(word in guard.name for word in words)
            ]
        share = _try_all(tree, trials, options.jobs)
    return int(share < options.at_least)


def _try_all(tree: Tree, trials: Sequence[tuple[Mutant, Sequence[str]]], jobs: int) -> float:
    """Print how each ends; return the percentage of those that were killed."""

    def killer(mutant: Mutant, expected: Sequence[str]) -> str | None:
        with tree.copy(mutant) as run:
            return judge(run, tree.is_sound, stages(tree.root, mutant.path, expected))

    listed, killed = equivalents(), 0
    with ThreadPoolExecutor(jobs) as pool:
        running = {}
        for mutant, expected in trials:
            if any(each.has(mutant, tree.source(mutant.path)) for each in listed):
                print(f"equivalent {mutant.path}:{mutant.line} [{mutant.operator}]")
            else:
                running[pool.submit(killer, mutant, expected)] = mutant, expected
        for done in as_completed(running):
            (mutant, expected), by = running[done], done.result()
            place = f"{mutant.path}:{mutant.line} [{mutant.operator}]"
            if by:
                killed += 1
                is_expected = not expected or by.partition("::")[0] in expected
                note = "" if is_expected else " (not by a test that guards.txt expects)"
                print(f"killed     {place} by {by}{note}", flush=True)
            else:
                print(f"SURVIVED   {place}\n{mutant.diff(tree.source(mutant.path))}", flush=True)
    share = 100 * killed / len(running) if running else 100.0
    print(f"{len(running)} mutants, {killed} killed, {share:.0f} %")
    return share


if __name__ == "__main__":
    sys.exit(main())
