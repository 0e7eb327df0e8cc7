"""The kind of setting that `TOPICS` is: patterns of topics' names, and what holds for each."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from ..exceptions import RealtimeConfigurationError
from .rate import RateSetting
from .setting import Choice, Setting, Switch

# Of a topic's name (events/topic.py, which this layer may not import), and "*".
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.*-]+")
MAX_CHARACTERS: Final = 99
PEOPLE: Final = "rule or anyone or users or staff or nobody"
Problem = tuple[str, str]  # what is wrong, and the remedy


# fmt: off
class TopicKeys:
    """What only a pattern of `TOPICS` may say of its topics."""

    STATE = Switch(False, "True or False",
        "The newest event is what counts: a reader without a position gets it first.")
    READ = Choice("rule", PEOPLE,
        "Who may read, by the default rule: also who is not signed in, who is, `is_staff` and "
        "superusers, or only the site's own code. `rule`: as without this key.")
    PUBLISH = Choice("rule", PEOPLE, "Who may publish; the same words.")
    PUBLISH_RATE = RateSetting(None,
        "Of what clients publish to one topic, all of them together; over it they get 429, or the "
        "error `rate_limited`. The site's own `publish()` is not counted. [limits.md](limits.md).")
    PRESENCE = Switch(False, "True or False",
        "Who reads the topic now is kept, and told to those who ask: "
        "[presence.md](presence.md).")
# fmt: on


TOPIC_KEYS: Final[Mapping[str, Setting[Any]]] = {
    name: each for name, each in vars(TopicKeys).items() if isinstance(each, Setting)
}


class TopicPattern(NamedTuple):
    """One entry of `TOPICS`: a name in which `*` stands for any characters, and its settings."""

    text: str
    own: Mapping[str, Any]

    def matches(self, topic: str) -> bool:
        """Return whether the entry is about this topic, or about all topics of a pattern."""
        # A "*" in it is a character then that nothing but another "*" matches. The expressions
        # of `fnmatch` take no exponential time, however many there are.
        return fnmatchcase(topic, self.text)


class TopicPatterns(Setting[Any]):
    """A setting that has settings by patterns; the code gets a tuple of `TopicPattern`."""

    def __init__(
        self, default: Any, unit: str, help: str, shared: Mapping[str, Setting[Any]]
    ) -> None:
        super().__init__(default, unit, help)
        self.keys = {**shared, **TOPIC_KEYS}  # those of the whole site, and the topics' own

    def resolve(self, value: Any) -> tuple[TopicPattern, ...]:
        """Return the patterns; raise `RealtimeConfigurationError` where one is wrong."""
        if problem := self.find_problem(value):
            raise RealtimeConfigurationError(f"REALTIME[{self.name!r}] {' '.join(problem)}")
        return tuple(TopicPattern(text, own) for text, own in value.items())

    def find_problem(self, value: Any) -> Problem | None:
        """Return the first pattern that never counts, unknown key or wrong value."""
        if not isinstance(value, dict):
            return f"is {value!r}.", "A dict, as {'room.*': {'RETENTION_EVENTS': 100}}."
        before: list[TopicPattern] = []
        for text, own in value.items():
            problem = (
                problem_of_pattern(text)
                or _problem_of_order(text, before)
                or self._problem_of_keys(text, own)
            )
            if problem:
                return problem
            before.append(TopicPattern(text, own))
        return None

    def _problem_of_keys(self, text: str, own: Any) -> Problem | None:
        if not isinstance(own, dict):
            return f"has {own!r} for {text!r}.", "A dict, as {'RETENTION_EVENTS': 100}."
        for key, value in own.items():
            if key not in self.keys:
                close = get_close_matches(str(key), self.keys, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"Known are {_list(self.keys)}."
                return f"has {key!r} for {text!r}, which is no setting of topics.", hint
            if problem := self.keys[key].find_problem(value):
                return f"has {key!r} for {text!r}, which {problem[0]}", problem[1]
        return None


def problem_of_pattern(text: Any) -> Problem | None:
    """Return why no topic's name matches a pattern, and the remedy; None if some do."""
    characters = text.replace("*", "") if isinstance(text, str) else ""
    if not isinstance(text, str) or _PATTERN.fullmatch(text) is None:
        hint = "Letters, digits, '-', '_' and '.', and '*' for any of them, as 'room.*'."
        return f"has the pattern {text!r}, which no topic's name matches.", hint
    if len(characters) > MAX_CHARACTERS:
        return f"has the pattern {text!r}, longer than a name.", f"{MAX_CHARACTERS} at most."
    return None


def _problem_of_order(text: str, before: Iterable[TopicPattern]) -> Problem | None:
    for other in before:
        if other.matches(text):
            message = f"has {text!r} after {other.text!r}, which matches all of its topics first."
            return message, f"Put {text!r} before {other.text!r}, or leave it out."
    return None


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
