"""Topic names: the channel layer's group-name alphabet, so that a topic is a group."""

import re
from typing import Final

from ..exceptions import InvalidTopic

MAX_TOPIC_LENGTH: Final = 99  # Channels wants group names under 100 characters
_TOPIC = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_TOPIC_LENGTH}}}")


def validate_topic(name: object) -> str:
    """Return `name` if it can name a topic; raise `InvalidTopic` with the remedy if not."""
    if not isinstance(name, str):
        raise InvalidTopic(f"A topic is a string, got {type(name).__name__}.")
    if _TOPIC.fullmatch(name) is None:
        raise InvalidTopic(
            f"{name[:120]!r} can't be a topic: use 1 to {MAX_TOPIC_LENGTH} ASCII letters, "
            "digits, '-', '_' or '.'."
        )
    return name


def user_topic(pk: object) -> str:
    """Return the topic that only this user may use, by the default rule.

    Raises `InvalidTopic` for a key with a dot: the topic would be below another user's, who may
    read it.
    """
    if "." in str(pk):
        raise InvalidTopic(
            f"{str(pk)[:120]!r} has a dot, as topics below a user's own: name topics of your own "
            "for these users, and permit them by a rule of your own (PERMISSION)."
        )
    return validate_topic(f"user.{pk}")
