"""Who is asking: the session cookie, a bearer token, or `?token=`."""

from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.requests import HTTPConnection
from sqlalchemy import select

from .database import AccessToken, LoginSession, Session, User, digest


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


async def current_user(connection: HTTPConnection) -> User | None:
    """The user of a request or a WebSocket; None for nobody."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await user_of_token(token)
    if token := connection.query_params.get("token"):
        return await user_of_token(token)
    if key := connection.cookies.get("sessionid"):
        return await user_of_session(key)
    return None


CurrentUser = Annotated[User | None, Depends(current_user)]


def may(user: User | None, topic: str, action: str) -> bool:
    """The permission rule. On `anyone.*` there is none, as in the chapter."""
    if topic.startswith("anyone.") or (topic.startswith("public.") and action == "read"):
        return True
    if user is None:
        return False
    return user.is_staff or topic.startswith(("public.", "room.")) or topic == f"user.{user.id}"


def require(user: User | None, topic: str, action: str) -> None:
    """401 or 403 unless the user may."""
    if not may(user, topic, action):
        raise HTTPException(401 if user is None else 403, f"You may not {action} {topic!r}.")
