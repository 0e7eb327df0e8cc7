"""Make the database and its users: `python -m benchmarks.fastapi_app.seed USERS [ROWS]`."""

import asyncio
import json
import secrets
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import insert

from .database import AccessToken, Base, Item, LoginSession, Session, User, digest, engine

ITEMS = 1_000
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


async def seed(count: int, rows: int) -> dict[str, list[str]]:
    """One token and one session per user, and a token of the staff, as header lines."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    tokens = [secrets.token_urlsafe(32) for _ in range(count)]
    keys = [secrets.token_hex(16) for _ in range(count)]
    async with Session() as session, session.begin():
        users = [User(username=f"user{number}") for number in range(count)]
        session.add_all(users)
        await session.flush()
        for user, token, key in zip(users, tokens, keys, strict=True):
            session.add(AccessToken(digest=digest(token), user_id=user.id))
            session.add(LoginSession(key=key, user_id=user.id))
        staff = User(username="staff", is_staff=True)
        session.add(staff)
        await session.flush()
        staff_token = secrets.token_urlsafe(32)
        session.add(AccessToken(digest=digest(staff_token), user_id=staff.id))
        for start in range(0, rows, BATCH):
            numbers = range(start, min(start + BATCH, rows))
            await session.execute(insert(Item), [item(number) for number in numbers])
    await engine.dispose()
    return {
        "token": [f"Authorization: Bearer {token}" for token in tokens],
        "staff": [f"Authorization: Bearer {staff_token}"],
        "session": [f"Cookie: sessionid={key}" for key in keys],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(seed(int(sys.argv[1]), int((sys.argv[2:] or [ITEMS])[0])))))
