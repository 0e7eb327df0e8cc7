"""What stands for a user: an access token, a session's key, a single-use ticket."""

import secrets

from sqlalchemy import select

from .broker import client
from .database import AccessToken, LoginSession, Session, User, digest

TICKET_SECONDS = 30


async def user_of_token(token: str) -> User | None:
    """The user a token stands for."""
    async with Session() as session:
        found = await session.scalar(select(AccessToken).where(AccessToken.digest == digest(token)))
    return found.user if found and found.user.is_active else None


async def user_of_session(key: str) -> User | None:
    """The user who is signed in under this session key."""
    async with Session() as session:
        found = await session.scalar(select(LoginSession).where(LoginSession.key == key))
    return found.user if found and found.user.is_active else None


async def make_ticket(user: User) -> str:
    """A ticket that stands for the user, once."""
    ticket = secrets.token_urlsafe(32)
    await client.set(f"ticket:{digest(ticket)}", user.id, ex=TICKET_SECONDS)
    return ticket


async def user_of_ticket(ticket: str) -> User | None:
    """The user who has fetched this ticket; it is used up."""
    user_id = await client.getdel(f"ticket:{digest(ticket)}")
    if user_id is None:
        return None
    async with Session() as session:
        found = await session.get(User, int(user_id))
    return found if found and found.is_active else None
