"""Rows 3 and 4: who is asking, by a bearer token, `?token=`, `?ticket=` or the session cookie."""

import os
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException
from fastapi.requests import HTTPConnection

from .credentials import user_of_session, user_of_ticket, user_of_token
from .database import User

ALLOWED_ORIGINS = set(os.environ.get("ALLOWED_ORIGINS", "").replace(",", " ").split())
READING = ("GET", "HEAD")


async def user_by_query(connection: HTTPConnection) -> User | None:
    """By `?token=`, or better `?ticket=`, which is of no use to who finds it in a log."""
    if token := connection.query_params.get("token"):
        return await user_of_token(token)
    if ticket := connection.query_params.get("ticket"):
        return await user_of_ticket(ticket)
    return None


async def user_by_cookie(connection: HTTPConnection) -> User | None:
    """By the session. A browser sends its cookie for any page: a WebSocket, and what changes
    something, has to come from one of ours."""
    key = connection.cookies.get("sessionid")
    if not key:
        return None
    if connection.scope.get("method") not in READING and not is_same_origin(connection):
        raise HTTPException(403, "This origin is not allowed.")
    return await user_of_session(key)


def is_same_origin(connection: HTTPConnection) -> bool:
    """Whether a page of ours has asked, as far as a browser tells."""
    origin = connection.headers.get("origin")
    if origin is None or origin in ALLOWED_ORIGINS:
        return True
    return urlsplit(origin).netloc == connection.headers.get("host")


async def current_user(connection: HTTPConnection) -> User | None:
    """The user of a request or a WebSocket; None for nobody."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await user_of_token(token)
    return await user_by_query(connection) or await user_by_cookie(connection)


def signed_in(user: Annotated[User | None, Depends(current_user)]) -> User:
    """The user, or 401."""
    if user is None:
        raise HTTPException(401, "Sign in, or send an access token.")
    return user


CurrentUser = Annotated[User | None, Depends(current_user)]
SignedIn = Annotated[User, Depends(signed_in)]
