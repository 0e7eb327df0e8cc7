"""Where topics stand: for a page that is rendered now, and listens from there."""

from asgiref.sync import async_to_sync

from ..eventlog import get_event_log
from ..events.position import START, format_positions
from ..events.topic import validate_topic


def position(*topics: str) -> str:
    """Return the id after the newest event of a topic, or one for a stream over several topics.

    Take it before you read what the page shows, and listen with `?after=` it: what is stored
    meanwhile comes as an event, and may be on the page already. Raises `InvalidTopic`.
    """
    return async_to_sync(aposition)(*topics)


async def aposition(*topics: str) -> str:
    """Return the id after the newest events from async code, as `position` does."""
    if not topics:
        raise TypeError("position() needs at least one topic.")
    names = [validate_topic(topic) for topic in topics]
    # From the log, not from memory: what another process has just stored may be on the page.
    heads = await get_event_log().heads(names)
    positions = {name: heads.get(name, START) for name in names}
    return str(positions[names[0]]) if len(names) == 1 else format_positions(positions)
