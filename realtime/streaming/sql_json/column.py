"""A column of a page as one text, and how the values in it are written as JSON."""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Final, NamedTuple, TypeAlias

from django.db import models

MAX_PLACES: Final = 6  # Python writes smaller decimals with exponents
NULL: Final = "\x01"  # stands for NULL between texts that are rewritten
INTEGERS: Final = (
    *(models.AutoField, models.BigAutoField, models.SmallAutoField),
    *(models.IntegerField, models.BigIntegerField, models.SmallIntegerField),
    *(models.PositiveIntegerField, models.PositiveBigIntegerField),
    models.PositiveSmallIntegerField,
)
TEXTS: Final = (
    *(models.CharField, models.TextField, models.SlugField, models.EmailField, models.URLField),
)


class Form(NamedTuple):
    """How some values are stored, with a 0 for every digit, and what becomes of them.

    A pattern, and which bytes of a value take which place there.
    """

    stored: bytes
    written: bytes
    moves: tuple[tuple[int, int, int], ...]  # from, to, how many

    def write(self, texts: bytes, count: int) -> list[bytes]:
        """So many texts of this form, a comma behind each, as they are written.

        Byte by byte of the form, and all values at once: a call for each would be the most
        expensive part of its row.
        """
        written = bytearray((self.written + b",") * count)
        stride, step = len(self.written) + 1, len(self.stored) + 1
        for source, target, length in self.moves:
            for offset in range(length):
                written[target + offset :: stride] = texts[source + offset :: step]
        return bytes(written[:-1]).split(b",")


class Forms(NamedTuple):
    """The forms in which Django stores a kind of value as text.

    Looked at here and not in SQL, where a look at each character costs more than all the rest.
    """

    digits: bytes  # a table that makes zeros of them
    forms: tuple[Form, ...]
    never: bytes = b",,"

    def write(self, texts: bytes, count: int) -> list[bytes] | None:
        """So many texts with commas between them, as they are written; None if one has no form."""
        texts += b","
        if self.never in texts:
            return None
        plain = texts.translate(self.digits)
        for form in self.forms:
            if plain == (form.stored + b",") * count:  # all of them, as most of the time
                return form.write(texts, count)
        stored, kinds = texts.split(b",")[:-1], plain.split(b",")[:-1]
        written: dict[bytes, Iterator[bytes]] = {NULL.encode(): repeat(b"null")}
        for form in self.forms:
            same = [
                each + b"," for each, kind in zip(stored, kinds, strict=True) if kind == form.stored
            ]
            written[form.stored] = iter(form.write(b"".join(same), len(same)) if same else ())
        if len(kinds) != count or not written.keys() >= set(kinds):
            return None
        return [next(written[kind]) for kind in kinds]


class Column(NamedTuple):
    """The SQL of a value's text: NULL where Python has to write it.

    It is JSON, unless it has `forms`. `separator` is in none of the texts.
    """

    text: str
    forms: Forms | None = None
    separator: str = ","

    def write(self, texts: bytes | None, count: int) -> list[bytes] | None:
        """So many texts, with separators between them, as JSON; None if one is missing or wrong."""
        if texts is None:
            return None if count else []
        if self.forms is not None:
            return self.forms.write(texts, count)
        cells = texts.split(self.separator.encode())
        return cells if len(cells) == count and _is_utf8(texts) else None


ToColumn: TypeAlias = Callable[[str], Column]  # of a column in SQL


def _is_utf8(text: bytes) -> bool:
    """SQLite keeps whatever it is given as text."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False
