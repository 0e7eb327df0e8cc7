"""Announcements that wait for their transaction's commit: the first one announces them all."""

from ..events.event import Event
from ..utils.commit_group import CommitGroup
from .announce import announce


class PendingAnnouncement(CommitGroup):
    """An event that is announced after the commit, with the others of the transaction."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event

    def send(self) -> None:
        """Announce, unless one that was called before has done so."""
        if events := [each.event for each in self.take()]:
            # Of a log without transactions they are stored just now: some before, some not at all.
            announce([event for event in events if not event.is_repeated and not event.is_pending])
