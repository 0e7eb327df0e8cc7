"""What the demo has to show: items in the database and files in a folder."""

import io
import math
import wave
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from django.db import reset_queries

from .models import Item

BATCH: Final = 5_000  # items in memory, and in one transaction
FIRST_CREATED: Final = datetime(2025, 1, 1, tzinfo=UTC)
ADJECTIVES: Final = ("Small", "Quiet", "Folding", "Copper", "Second-hand", "Blue", "Heavy", "Café")
NOUNS: Final = ("lamp", "teapot", "notebook", "bicycle bell", "radio", "umbrella", "compass")
MIB: Final = 2**20


def make_items(count: int) -> int:
    """Fill the table up to `count` items, in constant memory; how many were made."""
    have = Item.objects.count()
    for start in range(have, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        Item.objects.bulk_create([make_item(number) for number in numbers])
        reset_queries()  # with DEBUG on, Django keeps the text of each
    return max(0, count - have)


def make_item(number: int) -> Item:
    """The item with this number; always the same one, but for its UUID."""
    adjective = ADJECTIVES[number % len(ADJECTIVES)]
    noun = NOUNS[number // len(ADJECTIVES) % len(NOUNS)]
    return Item(
        name=f"{adjective} {noun} no. {number + 1}",
        price=Decimal(99 + number * 7_919 % 99_900) / 100,
        created=FIRST_CREATED + timedelta(minutes=number),
    )


def make_files(folder: Path) -> None:
    """Write the sample files that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, chunks in FILES.items():
        path = folder / name
        if not path.exists():
            # Moved into place when it is whole: a run that was interrupted leaves no half file.
            beside = folder / f".{path.name}.part"
            with beside.open("wb") as file:
                file.writelines(chunks())
            beside.replace(path)


def _hello() -> Iterable[bytes]:
    yield b"Hello.\n\nThis file was made by `manage.py demo`.\n"


def _awkward() -> Iterable[bytes]:
    yield "A name with quotes, spaces and more than ASCII: Grüße, 你好.\n".encode()


def _tone() -> Iterable[bytes]:
    """Two seconds of A, 440 Hz, that fade out."""
    rate, seconds = 16_000, 2
    frames = bytearray()
    for n in range(rate * seconds):
        loudness = 12_000 * (1 - n / (rate * seconds))
        sample = int(loudness * math.sin(2 * math.pi * 440 * n / rate))
        frames += sample.to_bytes(2, "little", signed=True)
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(frames))
    yield file.getvalue()


def _ten_megabytes() -> Iterator[bytes]:
    """Lines of 64 bytes that say where they are, so that a part can be told from another."""
    for start in range(0, 10 * MIB, MIB):
        yield b"".join(
            f"byte {offset:>10}".encode().ljust(63, b".") + b"\n"
            for offset in range(start, start + MIB, 64)
        )


FILES: Final[dict[str, Callable[[], Iterable[bytes]]]] = {
    "hello.txt": _hello,
    'Grüße "from" 東京 & elsewhere.txt': _awkward,
    "tone.wav": _tone,
    "ten-megabytes.txt": _ten_megabytes,
}
