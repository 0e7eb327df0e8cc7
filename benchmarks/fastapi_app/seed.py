"""Make the database and its users: `python -m benchmarks.fastapi_app.seed USERS`."""

import asyncio
import json
import secrets
import sys
from datetime import UTC, datetime
from decimal import Decimal

from .database import AccessToken, Base, Item, LoginSession, Session, User, digest, engine

ITEMS = 1_000


async def seed(count: int) -> dict[str, list[str]]:
    """One token and one session per user, as header lines."""
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
        for number in range(1, ITEMS + 1):
            price = Decimal(99 + number) / 100
            session.add(Item(name=f"Item {number}", price=price, created=datetime.now(UTC)))
    await engine.dispose()
    return {
        "token": [f"Authorization: Bearer {token}" for token in tokens],
        "session": [f"Cookie: sessionid={key}" for key in keys],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(seed(int(sys.argv[1])))))
