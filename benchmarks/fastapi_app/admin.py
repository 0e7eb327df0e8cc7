"""Users and items by hand: `python -m benchmarks.fastapi_app.admin create alice [--staff]`."""

import argparse
import asyncio
import json
import secrets
from typing import Any

from sqlalchemy import select

from .database import AccessToken, LoginSession, Session, User, create_tables, digest, engine
from .samples import fill


async def create(username: str, staff: bool) -> dict[str, Any]:
    """Make a user with a token and a session; one who exists gets new ones."""
    token, key = secrets.token_urlsafe(32), secrets.token_hex(16)
    async with Session() as session, session.begin():
        user = await session.scalar(select(User).where(User.username == username))
        if user is None:
            user = User(username=username)
            session.add(user)
        user.is_staff, user.is_active = staff, True
        await session.flush()
        session.add(AccessToken(digest=digest(token), user_id=user.id))
        session.add(LoginSession(key=key, user_id=user.id))
    return {"id": user.id, "username": username, "token": token, "session": key}


async def deactivate(username: str) -> None:
    """Let the user sign in no more."""
    async with Session() as session, session.begin():
        user = await session.scalar(select(User).where(User.username == username))
        if user is None:
            raise SystemExit(f"There is no user {username!r}.")
        user.is_active = False


async def items(count: int) -> None:
    """Fill the shop up to `count` items."""
    async with Session() as session, session.begin():
        await fill(session, count)


async def main(options: argparse.Namespace) -> None:
    """Do what is asked, in a database that has its tables."""
    await create_tables()
    if options.command == "create":
        print(json.dumps(await create(options.username, options.staff)))
    elif options.command == "deactivate":
        await deactivate(options.username)
    else:
        await items(options.count)
    await engine.dispose()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("create", help="prints the user and how to sign in, as JSON")
    command.add_argument("username")
    command.add_argument("--staff", action="store_true")
    commands.add_parser("deactivate").add_argument("username")
    commands.add_parser("items").add_argument("count", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
