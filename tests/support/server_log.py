"""What a server's log may not contain: errors that no test caused on purpose."""

import re
from collections.abc import Iterable, Iterator

# A line that is not part of the record before it: of a logger, or of Python itself.
BEGINNING = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) |\S+:\d+: \w*Warning: |"
    r"\S+ - - \[|"
    r"Exception ignored |Task was destroyed |Fatal Python error"
)
SIGNS = (
    "Traceback (most recent call last)",
    "ResourceWarning",
    "RuntimeWarning",
    "Exception ignored",
    "never awaited",
    "never retrieved",
    "was destroyed but it is pending",
    "Fatal Python error",
)


def unexpected(lines: Iterable[str], expected: Iterable[str] = ()) -> list[str]:
    """Return the records that report an error and contain none of the `expected` texts."""
    expected = list(expected)
    return [
        record
        for record in records(lines)
        if is_error(record) and not any(text in record for text in expected)
    ]


def is_error(record: str) -> bool:
    begin = BEGINNING.match(record)
    level = begin["level"] if begin else None
    return level in ("ERROR", "CRITICAL") or any(sign in record for sign in SIGNS)


def records(lines: Iterable[str]) -> Iterator[str]:
    """Yield each record with the lines of its traceback."""
    record: list[str] = []
    for line in lines:
        if record and BEGINNING.match(line):
            yield "\n".join(record)
            record = []
        record.append(line)
    if record:
        yield "\n".join(record)
