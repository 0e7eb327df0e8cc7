"""`manage.py prune_events`: apply retention now."""

from typing import Any

from django.core.management.base import BaseCommand

from realtime.eventlog import get_event_log
from realtime.processes import registry


class Command(BaseCommand):
    """Drop what RETENTION_SECONDS and RETENTION_EVENTS no longer keep, and print what went."""

    help = "Drop the events that retention no longer keeps."

    def handle(self, *args: Any, **options: Any) -> None:
        pruned = get_event_log().prune()
        registry.prune()
        for topic, count in pruned.items():
            self.stdout.write(f"{topic}: {count}")
        self.stdout.write(f"{sum(pruned.values())} events dropped from {len(pruned)} topics.")
