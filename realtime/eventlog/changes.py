"""Which topics have new events, by the primary keys of the events: those grow."""

from typing import NamedTuple

from .. import models
from ..events.position import Position
from .base import Changes
from .writer import alias


class Mark(NamedTuple):
    """The newest event's primary key at the last question, and at the one before."""

    before: int
    newest: int


def find_changes(mark: Mark | None, limit: int) -> Changes:
    """Return the topics of the events that were stored since `mark`, as `EventLog.changes`.

    Two statements, or one where nothing was. What is committed after an event with a higher key was
    seen is found if it is by the next question: each goes back to the one before the last.
    """
    events = models.Event.objects.using(alias())
    newest = events.order_by("-pk").values_list("pk", flat=True).first() or 0
    if mark is None or newest < mark.newest:  # pruned, or the database was set back
        return Changes(None, Mark(newest, newest))
    following = Mark(mark.newest, newest)
    if newest == mark.before:
        return Changes({}, following)
    rows = events.filter(pk__gt=mark.before).order_by("pk")
    found = rows.values_list("topic__name", "topic__epoch", "offset")[: limit + 1]
    heads: dict[str, Position] = {}
    for count, (name, epoch, offset) in enumerate(found, 1):
        if count > limit:
            return Changes(None, following)
        if name not in heads or heads[name].offset < offset:
            heads[name] = Position(epoch, offset)
    return Changes(heads, following)
