"""Stored texts of digits, a whole column at once, as JSON: dates, times, UUIDs."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final

DECIMAL: Final = bytes.maketrans(b"123456789", b"0" * 9)
HEXADECIMAL: Final = bytes.maketrans(b"123456789abcdef", b"0" * 15)


class DigitTemplate:
    """How texts are stored, with a 0 for every digit, and how JSON has them.

    `DigitTemplate("0000-00-00", '"0000-00-00"').write(b"2025-01-31,2025-02-01,", 2)` returns
    `[b'"2025-01-31"', b'"2025-02-01"']`. JSON may have fewer of the digits.
    """

    def __init__(self, stored: str, json: str) -> None:
        self.stored, self._json = stored.encode(), json.encode()
        sources, targets = (
            [at for at, c in enumerate(text) if c == "0"] for text in (stored, json)
        )
        self._moves = list(zip(sources, targets, strict=False))

    def write(self, texts: bytes, count: int) -> list[bytes]:
        """Return the JSON of `count` texts of this template, each with a comma at its end."""
        # Digit by digit of the template, and all texts at once: a call for each would be the most
        # expensive part of its row.
        written = bytearray((self._json + b",") * count)
        stride, step = len(self._json) + 1, len(self.stored) + 1
        for source, target in self._moves:
            written[target::stride] = texts[source::step]
        return bytes(written[:-1]).split(b",")


def write_digits(
    texts: bytes, count: int, zeros: bytes, templates: Sequence[DigitTemplate]
) -> list[bytes] | None:
    """Return the JSON of `count` texts, with commas between them; None if one has no template.

    `zeros` is the table that makes a 0 of every digit. The text `null` stands for NULL.
    """
    # Compared here and not in SQL, where a call for each character costs more than all the rest.
    texts += b","
    plain = texts.translate(zeros)
    for template in templates:
        if plain == (template.stored + b",") * count:  # all of them, as most of the time
            return template.write(texts, count)
    stored, kinds = texts.split(b",")[:-1], plain.split(b",")[:-1]
    written: dict[bytes, Iterator[bytes]] = {b"null": repeat(b"null")}
    for template in templates:
        same = [
            text + b"," for text, kind in zip(stored, kinds, strict=True) if kind == template.stored
        ]
        written[template.stored] = iter(template.write(b"".join(same), len(same)) if same else ())
    if len(kinds) != count or not written.keys() >= set(kinds):
        return None
    return [next(written[kind]) for kind in kinds]
