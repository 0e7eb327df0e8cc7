"""`manage.py publish TOPIC JSON`: publish an event."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.delivery.publish import publish
from realtime.events.payload import DEFAULT_TYPE, decode_data
from realtime.exceptions import RealtimeError


class Command(BaseCommand):
    """Print the event's id; an ephemeral event has none."""

    help = "Publish an event to a topic and print its id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("topic")
        parser.add_argument("json", help='the data, as \'{"text": "hello"}\'')
        parser.add_argument("--type", default=DEFAULT_TYPE)
        parser.add_argument("--ephemeral", action="store_true", help="do not log it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data = decode_data(options["json"])
            event = publish(
                options["topic"], data, type=options["type"], ephemeral=options["ephemeral"]
            )
        except RealtimeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(event.id or "ephemeral")
