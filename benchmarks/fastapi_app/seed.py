"""Make the database and its users: `python -m benchmarks.fastapi_app.seed USERS [ROWS]`."""

import asyncio
import json
import secrets
import sys

from .database import AccessToken, LoginSession, Session, User, create_tables, digest, engine
from .samples import fill

ITEMS = 1_000


async def seed(count: int, rows: int) -> dict[str, list[str]]:
    """One token and one session per user, and a token of the staff, as header lines."""
    await create_tables()
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
        await fill(session, rows)
    await engine.dispose()
    return {
        "token": [f"Authorization: Bearer {token}" for token in tokens],
        "staff": [f"Authorization: Bearer {staff_token}"],
        "session": [f"Cookie: sessionid={key}" for key in keys],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(seed(int(sys.argv[1]), int((sys.argv[2:] or [ITEMS])[0])))))
