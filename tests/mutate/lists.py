"""The two lists beside this file: guards that a test has to notice, and mutants that none can."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from .operators import Mutant

HERE = Path(__file__).parent


class Guard(NamedTuple):
    """A few lines without which a race or a failure would end badly.

    In guards.txt a paragraph: its name, its file, the tests expected to notice its loss, and then,
    as a diff has them, the lines of the file (` ` to stay, `-` to go) and what comes instead (`+`).
    Their indentation counts from the outermost of them.
    """

    name: str
    path: str
    tests: tuple[str, ...]
    old: str
    new: str

    def mutant(self, source: str) -> Mutant:
        """Return its removal. Raises ValueError where the file does not have the lines once."""
        lines = source.splitlines(keepends=True)
        size = self.old.count("\n")
        blocks = ["".join(lines[line : line + size]) for line in range(len(lines))]
        found = [line for line, block in enumerate(blocks) if textwrap.dedent(block) == self.old]
        if len(found) != 1:
            raise ValueError(f"{self.path} has the lines of {self.name!r} {len(found)} times.")
        line, block = found[0], blocks[found[0]]
        indent = block.index(self.old.split("\n")[0]) if self.old else 0
        start = len("".join(lines[:line]))
        text = textwrap.indent(self.new, " " * indent)
        return Mutant(self.path, line + 1, self.name, start, start + len(block), text)


class Equivalent(NamedTuple):
    """Mutants that change nothing a test could see.

    In equivalent.txt a paragraph: the file, the operator, the line as it stands, the reason.
    """

    path: str
    operator: str
    line: str
    reason: str

    def has(self, mutant: Mutant, source: str) -> bool:
        """Return whether the mutant is one of them."""
        line = source.splitlines()[mutant.line - 1].strip()
        return (self.path, self.operator, self.line) == (mutant.path, mutant.operator, line)


def guards(text: str | None = None) -> list[Guard]:
    """Return the guards that guards.txt, or `text`, lists."""
    found = []
    for name, path, tests, *hunk in _paragraphs("guards.txt", text):
        old = textwrap.dedent("".join(line[1:] + "\n" for line in hunk if line[0] != "+"))
        margin = min(len(line) - len(line[1:].lstrip()) - 1 for line in hunk if line[0] != "+")
        new = "".join(line[1 + margin :] + "\n" for line in hunk if line[0] != "-")
        found.append(Guard(name, path, tuple(tests.split()), old, new))
    return found


def equivalents(text: str | None = None) -> list[Equivalent]:
    """Return what equivalent.txt, or `text`, lists."""
    return [
        Equivalent(path, operator, line.strip(), " ".join(reason))
        for path, operator, line, *reason in _paragraphs("equivalent.txt", text)
    ]


def _paragraphs(name: str, text: str | None) -> list[list[str]]:
    text = (HERE / name).read_text() if text is None else text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    blocks = re.split(r"\n\n+", "\n".join(lines).strip("\n"))
    return [block.splitlines() for block in blocks if block]
