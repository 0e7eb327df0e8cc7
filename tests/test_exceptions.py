"""`realtime.exceptions`: the tree is as it is drawn."""

import inspect
import re

from django.core.exceptions import ImproperlyConfigured

from realtime import exceptions


def drawn() -> dict[str, str | None]:
    """The classes of the drawing at the top, each with its parent."""
    found: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)(\w+)(  |$)", line)
        if match is None:
            continue
        depth, name = len(match[1]), match[2]
        above = [(d, n) for d, n in above if d < depth]
        found[name] = above[-1][1] if above else None
        above.append((depth, name))
    return found


def test_the_drawing_is_true():
    classes = {
        name: thing
        for name, thing in inspect.getmembers(exceptions, inspect.isclass)
        if thing.__module__ == exceptions.__name__
    }
    parents = {
        name: next((b.__name__ for b in thing.__bases__ if b.__name__ in classes), None)
        for name, thing in classes.items()
    }
    assert drawn() == parents


def test_a_wrong_setting_is_djangos_kind_of_error():
    assert issubclass(exceptions.RealtimeConfigurationError, ImproperlyConfigured)
