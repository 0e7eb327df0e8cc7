"""`manage.py new_epoch`: after a restored backup."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.eventlog import get_event_log


class Command(BaseCommand):
    """Make every position from before invalid: readers get a reset and begin anew.

    The events that are there stay.
    """

    help = "Begin a new epoch of topics whose log has lost events, as by a restored backup."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("topics", nargs="*", metavar="TOPIC")
        parser.add_argument("--all", action="store_true", help="all topics of the log")

    def handle(self, *args: Any, **options: Any) -> None:
        topics = options["topics"]
        if bool(topics) == options["all"]:
            raise CommandError("Name the topics, or say --all.")
        count = get_event_log().start_epoch(None if options["all"] else topics)
        self.stdout.write(f"A new epoch of {count} topic{'' if count == 1 else 's'}.")
