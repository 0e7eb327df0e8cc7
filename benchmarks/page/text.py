"""Numbers and tables in Markdown."""

from collections.abc import Iterable, Sequence


def number(value: float) -> str:
    """As many digits as mean something."""
    value = round(value, 2) + 0.0  # no minus in front of nothing
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def times(ratio: float | None) -> str:
    """A ratio, blank where there is none."""
    return "" if ratio is None else f"{ratio:.2f}x"


def table_of(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns to the left, the others to the right."""
    rule = ["---"] * left + ["--:"] * (len(head) - left)
    rows = (" | ".join(map(_escaped, cells)) for cells in (head, rule, *lines))
    return "\n".join(f"| {row} |" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
