"""Prometheus' text format 0.0.4: what `GET /metrics` answers."""

from collections.abc import Iterator, Mapping
from typing import Final

from .series import escaped_help, registry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def render(totals: Mapping[str, int]) -> str:
    """Return all series with these sums; names that no series has are left out."""
    return "".join(_lines(totals))


def _lines(totals: Mapping[str, int]) -> Iterator[str]:
    for name, series in sorted(registry.items()):
        yield f"# HELP {name} {escaped_help(series.help)}\n# TYPE {name} {series.type}\n"
        for sample, value in series.samples(totals):
            yield f"{sample} {value}\n"
