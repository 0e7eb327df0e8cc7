"""`manage.py new_epoch`: after a restored backup."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.eventlog import get_event_log
from realtime.events.topic import validate_topic
from realtime.exceptions import InvalidTopic


class Command(BaseCommand):
    """Make every position from before invalid: readers get a reset and begin anew.

    The events that are there stay. A topic that the log does not have is an error, when the
    others are done.
    """

    help = "Begin a new epoch of topics whose log has lost events, as by a restored backup."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("topics", nargs="*", metavar="TOPIC")
        parser.add_argument("--all", action="store_true", help="all topics of the log")

    def handle(self, *args: Any, **options: Any) -> None:
        topics, log = list(dict.fromkeys(options["topics"])), get_event_log()
        if bool(topics) == options["all"]:
            raise CommandError("Name the topics, or say --all.")
        try:
            for topic in topics:
                validate_topic(topic)
        except InvalidTopic as error:
            raise CommandError(str(error)) from None
        unknown = [topic for topic in topics if not log.start_epoch([topic])]
        count = len(topics) - len(unknown) if topics else log.start_epoch()
        self.stdout.write(f"A new epoch of {count} topic{'' if count == 1 else 's'}.")
        if unknown:
            raise CommandError(f"The log has no topic {', '.join(map(repr, unknown))}.")
