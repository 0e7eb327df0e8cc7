"""Who may do what on a topic."""

import re
from typing import Annotated

from fastapi import HTTPException, Path

from .database import User

NAME = r"^[A-Za-z0-9_.-]{1,100}$"
Topic = Annotated[str, Path(pattern=NAME)]


def is_topic(name: str) -> bool:
    """Whether a topic may be called so."""
    return re.fullmatch(NAME, name) is not None


def may(user: User | None, topic: str, action: str) -> bool:
    """The permission rule. On `anyone.*` there is none, as in the chapter."""
    if topic.startswith("anyone.") or (topic.startswith("public.") and action == "read"):
        return True
    if user is None:
        return False
    own = f"user.{user.id}"
    return user.is_staff or topic.startswith(("public.", "room.", f"{own}.")) or topic == own


def require(user: User | None, topic: str, action: str) -> None:
    """401 or 403 unless the user may."""
    if not may(user, topic, action):
        raise HTTPException(401 if user is None else 403, f"You may not {action} {topic!r}.")
