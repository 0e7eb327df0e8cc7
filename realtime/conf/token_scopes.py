"""The language of an access token's scopes: `publish:room.* read:orders.*`."""

from functools import lru_cache
from typing import Final

from .topic_patterns import Problem, TopicPattern, problem_of_pattern

SCOPE_ACTIONS: Final = ("read", "publish", "presence")
MAX_SCOPES_LENGTH: Final = 4_000  # characters
OWN_TOPICS: Final = "realtime."  # the package's; only a pattern that names them is about them


def find_problem_of_scopes(text: str, *, is_service: bool = False) -> Problem | None:
    """Return what is wrong with a token's scopes, and the remedy; None if nothing is."""
    if len(text) > MAX_SCOPES_LENGTH:
        message = f"The scopes have {len(text)} characters."
        return message, f"{MAX_SCOPES_LENGTH} at most: put topics together by '*'."
    for scope in text.split():
        action, colon, pattern = scope.partition(":")
        if not colon or action not in SCOPE_ACTIONS:
            known = ", ".join(SCOPE_ACTIONS)
            hint = f"An action ({known}), ':' and a pattern of topics, as 'publish:room.*'."
            return f"{scope[:100]!r} is no scope.", hint
        if problem := problem_of_pattern(pattern):
            return f"{scope[:100]!r} {problem[0]}", problem[1]
        if is_service and pattern.startswith(OWN_TOPICS):
            message = f"{scope[:100]!r} would never count: these topics are for superusers alone."
            return message, "Leave it out."
    return None


def scopes_allow(text: str, topic: str, action: str) -> bool:
    """Return whether one of the scopes is about this action on this topic."""
    own = topic.startswith(OWN_TOPICS)
    return any(
        pattern.matches(topic) and (not own or pattern.text.startswith(OWN_TOPICS))
        for pattern in _patterns(text, action)
    )


@lru_cache(maxsize=1_000)
def _patterns(text: str, action: str) -> tuple[TopicPattern, ...]:
    # What was written past the model's own check gives nothing.
    if find_problem_of_scopes(text):
        return ()
    scopes = (scope.partition(":") for scope in text.split())
    return tuple(TopicPattern(pattern, {}) for kind, _, pattern in scopes if kind == action)
