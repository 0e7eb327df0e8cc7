"""The kinds of series: counters, gauges and histograms.

One line where a thing happens makes a series, another one counts it:

    TICKETS: Final = Counter("realtime_tickets_issued_total", "Tickets that were made.")
    TICKETS.inc()

The values of a label are all named where the series is made, so that nothing from outside, no topic
and no user, becomes one: a series costs memory in every process and in Prometheus. Each new series
has a line in docs/metrics.md.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import ClassVar, Final

from .cells import CELLS, UNSET, Kind, cells

logger = logging.getLogger("realtime.metrics")

OTHER: Final = "other"  # in place of unknown values of a label; named among its values
NANOSECONDS: Final = 1_000_000_000
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

registry: Final[dict[str, "Series"]] = {}  # every series by its name


class Series:
    """Numbers of one name, one for each combination of the values of its labels."""

    type: ClassVar[str]

    def __init__(self, name: str, help: str) -> None:
        if name in registry:
            raise ValueError(f"There is a series {name} already.")
        self.name = name
        self.help = help
        self.labels: Mapping[str, Sequence[str]] = {}
        registry[name] = self

    def samples(self, totals: Mapping[str, int]) -> Iterator[tuple[str, int | float]]:
        """Yield name, with its labels, and value of each number, of the sums of all processes."""
        raise NotImplementedError


class _Labelled(Series):
    """A series whose labels have these values."""

    def __init__(self, name: str, help: str, kind: Kind, labels: Mapping[str, Sequence[str]]):
        super().__init__(name, help)
        self.labels = labels
        self._allowed = [frozenset(values) for values in labels.values()]
        self._names: list[str] = []
        self._indexes: dict[tuple[str, ...], int] = {}
        for values in product(*labels.values()):
            pairs = zip(labels, values, strict=True)
            written = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
            self._names.append(f"{name}{{{written}}}" if written else name)
            self._indexes[values] = cells.allot(kind, self._names[-1])
            if kind is Kind.MIN:
                cells.values[self._indexes[values]] = UNSET  # it has nothing to say yet

    def _index(self, labels: tuple[str, ...]) -> int:
        index = self._indexes.get(labels)
        return self._index_of_other(labels) if index is None else index

    def _index_of_other(self, labels: tuple[str, ...]) -> int:
        pairs = zip(labels, self._allowed, strict=True)
        known = tuple(value if value in allowed else OTHER for value, allowed in pairs)
        return self._indexes[known]

    def value(self, *labels: str) -> int:
        """Return the number of this process."""
        return cells.values[self._index(labels)]

    def samples(self, totals: Mapping[str, int]) -> Iterator[tuple[str, int | float]]:
        for name in self._names:
            yield name, totals.get(name, 0)


class Counter(_Labelled):
    """What only grows, also over restarts. Its name ends in `_total`."""

    type = "counter"

    def __init__(self, name: str, help: str, **labels: Sequence[str]) -> None:
        super().__init__(name, help, Kind.COUNT, labels)

    def inc(self, *labels: str) -> None:
        """Count one more, from any thread; `labels` are the values in their order."""
        cells.values[self._index(labels)] += 1

    def add(self, amount: int, *labels: str) -> None:
        """Count so many more, as `inc` does."""
        index = self._indexes.get(labels)  # without a further call: it is on the way of every event
        cells.values[self._index_of_other(labels) if index is None else index] += amount


class Gauge(_Labelled):
    """A number that goes up and down: of all processes the sum, or with `Kind.MIN` the least one.

    It is set where it changes; or `read` is called before it is returned, and every few seconds for
    other processes, in the event loop: it has to be quick. With one label, `read` returns the
    numbers by its values.
    """

    type = "gauge"

    def __init__(
        self,
        name: str,
        help: str,
        *,
        read: Callable[[], int | Mapping[str, int]] | None = None,
        kind: Kind = Kind.SUM,
        **labels: Sequence[str],
    ) -> None:
        super().__init__(name, help, kind, labels)
        self._read = read

    def inc(self, *labels: str) -> None:
        """Count one more."""
        cells.values[self._index(labels)] += 1

    def dec(self, *labels: str) -> None:
        """Count one less."""
        cells.values[self._index(labels)] -= 1

    def set(self, value: int, *labels: str) -> None:
        """Be `value` from now on."""
        cells.values[self._index(labels)] = value

    def refresh(self) -> None:
        """Set what `read` returns; called in the event loop."""
        if self._read is None:
            return
        try:
            found = self._read()
        except Exception:
            logger.exception("The gauge %s can't be read", self.name)
            return
        if isinstance(found, int):
            self.set(found)
        else:
            for label, value in found.items():
                self.set(value, label)


class Histogram(Series):
    """How long things took, in seconds."""

    type = "histogram"

    def __init__(self, name: str, help: str, buckets: Sequence[float] = SECONDS) -> None:
        super().__init__(name, help)
        self._bounds = tuple(buckets)
        bounds = [*map(_written, self._bounds), "+Inf"]
        self._names = [f'{name}_bucket{{le="{bound}"}}' for bound in bounds]
        self._first = cells.allot(Kind.COUNT, *self._names)
        self._sum = cells.allot(Kind.COUNT, f"{name}_sum")  # in nanoseconds

    def observe(self, seconds: float) -> None:
        """Count a duration; a negative one, by clocks that disagree, counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        values = cells.values
        values[self._first + CELLS * bisect_left(self._bounds, seconds)] += 1
        values[self._sum] += int(seconds * NANOSECONDS)

    def count(self) -> int:
        """Return how many this process has observed."""
        return sum(cells.values[self._first + CELLS * n] for n in range(len(self._names)))

    def samples(self, totals: Mapping[str, int]) -> Iterator[tuple[str, int | float]]:
        counts = accumulate(totals.get(name, 0) for name in self._names)
        count = 0
        for name, count in zip(self._names, counts, strict=True):
            yield name, count
        yield f"{self.name}_sum", totals.get(f"{self.name}_sum", 0) / NANOSECONDS
        yield f"{self.name}_count", count


def _written(bound: float) -> str:
    return f"{bound:g}"


def _escaped(value: str) -> str:
    return escaped_help(value).replace('"', r"\"")


def escaped_help(text: str) -> str:
    """Return a text as Prometheus' format has it after `# HELP`."""
    return text.replace("\\", r"\\").replace("\n", r"\n")


def refresh_gauges() -> None:
    """Have all gauges read, in the event loop."""
    for each in list(registry.values()):
        if isinstance(each, Gauge):
            each.refresh()
