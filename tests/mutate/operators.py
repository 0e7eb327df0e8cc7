"""Mutants of a source file: changes of one place, by what stands there in the syntax tree."""

import ast
import difflib
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

OPERATORS = {ast.And: "and", ast.Or: "or"}
BOUNDARIES: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
}
OPPOSITES: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
# What is not run, or for mypy alone; f-strings have no positions of their own before Python 3.12.
NOT_CODE = (ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom)
NOT_CODE_FIELDS = {"annotation", "returns", "decorator_list"}


class Mutant(NamedTuple):
    """One change of one file: `text` in place of what stands from `start` to before `stop`."""

    path: str  # from the root of the repository
    line: int
    operator: str
    start: int
    stop: int
    text: str

    def apply(self, source: str) -> str:
        """Return the source of the file with the change."""
        return source[: self.start] + self.text + source[self.stop :]

    def diff(self, source: str) -> str:
        """Return the changed lines as a diff has them, without its headers."""
        lines = difflib.unified_diff(source.splitlines(), self.apply(source).splitlines(), n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def mutants(path: str, source: str) -> list[Mutant]:
    """Return every mutant of a file, in the order of its lines."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def place(line: int, column: int) -> int:  # the tree counts columns in bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def span(first: Any, last: Any = None) -> tuple[int, int]:
        end = last or first
        return (
            place(first.lineno, first.col_offset),
            place(end.end_lineno, end.end_col_offset),
        )

    def between(before: ast.expr, after: ast.expr, old: str) -> tuple[int, int]:
        """Return where the operator `old` stands between two operands."""
        start, stop = span(before)[1], span(after)[0]
        found = list(re.finditer(rf"(?<!\w){re.escape(old)}(?!\w)", source[start:stop]))[-1]
        return start + found.start(), start + found.end()

    found = []
    for node, is_condition in _walk(ast.parse(source)):
        changes: list[tuple[str, tuple[int, int], str]] = []
        if is_condition:
            start, stop = span(node)
            changes.append(("condition negated", (start, stop), f"not ({source[start:stop]})"))
        match node:
            case ast.Expr(value=ast.Await()):
                changes.append(("await dropped", span(node), "pass"))
            case (
                ast.Expr(value=ast.Call())
                | ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
                | ast.AnnAssign(target=ast.Attribute(), value=ast.expr())
                | ast.AugAssign()
                | ast.Delete()
                | ast.Raise()
                | ast.Break()
                | ast.Continue()
            ):
                changes.append(("statement dropped", span(node), "pass"))
            case ast.BoolOp(op=op, values=values):
                old = OPERATORS[type(op)]
                new = "or" if old == "and" else "and"
                for pair in pairwise(values):
                    changes.append(("and / or", between(*pair, old), new))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                for op, pair in zip(ops, pairwise([left, *comparators]), strict=True):
                    if change := BOUNDARIES.get(type(op)):
                        changes.append(("boundary", between(*pair, change[0]), change[1]))
                    elif not is_condition:  # else the same as the condition negated
                        old, new = OPPOSITES[type(op)]
                        changes.append(("comparison negated", between(*pair, old), new))
            case ast.UnaryOp(op=ast.Not(), operand=operand) if not is_condition:
                start, stop = span(operand)
                changes.append(("not dropped", span(node), f"({source[start:stop]})"))
            case ast.ExceptHandler(body=[first, *_]) if not isinstance(first, ast.Raise):
                changes.append(("except raises", span(first, node.body[-1]), "raise"))
            case ast.Constant(value=bool() as value):
                changes.append(("constant flipped", span(node), str(not value)))
            case ast.Constant(value=int() | float() as value):
                changes.append(("constant + 1", span(node), repr(value + 1)))
                changes.append(("constant - 1", span(node), repr(value - 1)))
            case ast.Return(value=ast.expr() as returned) if not isinstance(returned, ast.Constant):
                changes.append(("returns None", span(node), "return None"))
        found += [
            Mutant(path, source.count("\n", 0, start) + 1, operator, start, stop, text)
            for operator, (start, stop), text in changes
        ]
    return sorted(found, key=lambda each: (each.start, each.stop, each.operator))


def _walk(node: ast.AST) -> Iterator[tuple[Any, bool]]:
    """Yield what can be changed below a node, and whether it is a condition."""
    conditions = [getattr(node, "test", None), *getattr(node, "ifs", [])]
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in NOT_CODE_FIELDS and _is_code(child):
                yield child, any(child is condition for condition in conditions)
                yield from _walk(child)


def _is_code(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
        case ast.Raise(exc=ast.Name(id="NotImplementedError")):
            return False
    return not isinstance(node, NOT_CODE)
