"""Items for the shop."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from .database import Item

BATCH = 5_000
FIRST_CREATED = datetime(2025, 1, 1)
ADJECTIVES = ("Small", "Quiet", "Folding", "Copper", "Second-hand", "Blue", "Heavy", "Café")
NOUNS = ("lamp", "teapot", "notebook", "bicycle bell", "radio", "umbrella", "compass")


def item(number: int) -> dict[str, Any]:
    """The values of one item, the same as in Django's demo."""
    adjective = ADJECTIVES[number % len(ADJECTIVES)]
    noun = NOUNS[number // len(ADJECTIVES) % len(NOUNS)]
    return {
        "name": f"{adjective} {noun} no. {number + 1}",
        "price": Decimal(99 + number * 7_919 % 99_900) / 100,
        "created": FIRST_CREATED + timedelta(minutes=number),
    }


async def fill(session: AsyncSession, count: int) -> None:
    """Fill the table up to `count` items."""
    have = await session.scalar(select(func.count()).select_from(Item)) or 0
    for start in range(have, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        await session.execute(insert(Item), [item(number) for number in numbers])
