"""The kinds of settings: what a key of `REALTIME` may be, and where its value comes from."""

import math
import re
from typing import Any, Final, Generic, Self, TypeVar, cast, overload

from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from ..exceptions import RealtimeConfigurationError

T = TypeVar("T")

# As browsers write it: lower case, no path, not even a slash (RFC 6454, section 6.2).
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@A-Z]+")

# Further away dates come to an end.
MOST: Final = {"seconds": 100 * 365 * 86_400, "days": 100 * 365}
MOST_OF_OTHERS: Final = 2**53  # what databases and JSON count with

# What a site may have named in its settings, and where it is now.
MOVED_PATHS: Final = {
    "realtime.log.database.DatabaseLog": "realtime.eventlog.database.DatabaseLog",
    "realtime.log.memory.MemoryLog": "realtime.eventlog.memory.MemoryLog",
    "realtime.permissions.default_rule": "realtime.access.permissions.default_rule",
} | {
    f"realtime.llm.{path}": f"realtime.llm.providers.{path}"
    for path in (
        "anthropic.AnthropicProvider",
        "dummy.DummyProvider",
        "offline.OfflineProvider",
        "openai.OpenAIProvider",
    )
}


class Setting(Generic[T]):
    """One key of `REALTIME`: its default, its unit, and what happens at the limit."""

    def __init__(self, default: T, unit: str, help: str, *, is_nullable: bool = False) -> None:
        self.default = default
        self.unit = unit
        self.help = help
        self.is_nullable = is_nullable

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # Kept as an instance attribute, which then hides this descriptor: the look-up is on the
        # path of every event.
        value = self.resolve(given().get(self.name, self.default))
        instance.__dict__[self.name] = value
        return value

    def resolve(self, value: Any) -> T:
        """Return what the code gets for the value in Django's settings."""
        return cast(T, MOVED_PATHS.get(value, value) if isinstance(value, str) else value)

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value, and the remedy; None if nothing is."""
        if value is None:
            remedy = f"The default is {self.default!r}."
            return None if self.is_nullable else ("is None, which means nothing here.", remedy)
        if not isinstance(self.default, int | float):
            kind = type(self.default)
            return None if type(value) is kind else (f"is {value!r}.", f"A {kind.__name__}.")
        is_whole = isinstance(self.default, int) and self.unit != "seconds"
        kinds = (int,) if is_whole else (int, float)
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not -math.inf < value < math.inf
        ):
            number = "whole number" if is_whole else "number"
            return f"is {value!r}.", f"A {number}, as {self.default!r}."
        if value <= 0:
            return f"is {value!r}.", f"More than zero, as {self.default!r}."
        if value > (most := MOST.get(self.unit, MOST_OF_OTHERS)):
            unlimited = ", or None for no limit" if self.is_nullable else ""
            return "is too large.", f"{most} at most{unlimited}."
        return None


class Most(Setting[int | None]):
    """A setting that is how many there may be, or None for no limit."""

    def __init__(self, default: int | None, unit: str, help: str) -> None:
        super().__init__(default, unit, help, is_nullable=True)

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with what is no number of things."""
        is_count = type(value) is int and 0 < value <= MOST_OF_OTHERS
        remedy = "A whole number, more than zero, as 1000, or None for no limit."
        return None if value is None or is_count else (f"is {value!r}.", remedy)


class DottedPath(Setting[Any]):
    """A setting that names an object; the code gets the object."""

    def resolve(self, value: Any) -> Any:
        """Import the object; raise `RealtimeConfigurationError` if that can't be done."""
        if not isinstance(value, str):
            return value
        try:
            return import_string(super().resolve(value))
        except ImportError as error:
            raise RealtimeConfigurationError(
                f"REALTIME[{self.name!r}] = {value!r} can't be imported: {error}"
            ) from error

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value, without importing anything."""
        if isinstance(value, str) or callable(value) or (value is None and self.is_nullable):
            return None
        return f"is {value!r}.", "A dotted path, as 'app.module.name'."


class Secret(Setting[str]):
    """A setting that is a password, or may have one in it: no message shows it."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with a value, and not the value."""
        return None if isinstance(value, str) else ("is not a string.", "A string, '' for none.")


class Choice(Setting[str]):
    """A setting that is one of the words that its unit names."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with what is none of the words."""
        is_one = value in self.unit.split(" or ")
        return None if is_one else (f"is {value!r}.", f"One of {self.unit}.")


class Switch(Setting[bool]):
    """A setting that is on or off."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return what is wrong with what is neither True nor False."""
        return None if isinstance(value, bool) else (f"is {value!r}.", "True or False.")


class Origins(Setting[list[str]]):
    """A setting that lists origins as browsers send them."""

    def find_problem(self, value: Any) -> tuple[str, str] | None:
        """Return the first entry that no browser sends as its Origin."""
        if not isinstance(value, list | tuple):
            return f"is {value!r}.", "A list, as ['https://app.example.com']."
        for origin in value:
            if not isinstance(origin, str) or _ORIGIN.fullmatch(origin) is None:
                hint = "Scheme and host in lower case, without a path: 'https://app.example.com'."
                return f"has {origin!r}, which no browser sends as its Origin.", hint
        return None


def given() -> dict[str, Any]:
    """Return the site's `REALTIME`; raise `RealtimeConfigurationError` if it is not a dict."""
    found = getattr(django_settings, "REALTIME", {})
    if not isinstance(found, dict):
        raise RealtimeConfigurationError("REALTIME is not a dict.")
    return found
