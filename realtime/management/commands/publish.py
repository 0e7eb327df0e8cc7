"""`manage.py publish TOPIC JSON`: publish an event."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from realtime.delivery.publish import publish
from realtime.events.payload import DEFAULT_TYPE, decode_data
from realtime.exceptions import RealtimeError


class Command(BaseCommand):
    """Publish, and print the event's id; where its key came before, that of the first one."""

    help = "Publish an event to a topic and print its id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("topic")
        parser.add_argument("json", help='the data, as \'{"text": "hello"}\'')
        parser.add_argument("--type", default=DEFAULT_TYPE)
        parser.add_argument("--key", help="the same again with the same key is stored once")
        parser.add_argument("--ephemeral", action="store_true", help="do not log it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            data = decode_data(options["json"])
            more = {name: options[name] for name in ("type", "ephemeral", "key")}
            event = publish(options["topic"], data, **more)
        except RealtimeError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(event.id or "ephemeral")
