"""`manage.py runserver`: Daphne's, with this server class."""

from daphne.management.commands.runserver import Command as DaphneRunserver

from realtime.server.server import Server


class Command(DaphneRunserver):
    """Daphne's `runserver`, so that development behaves like production."""

    server_cls = Server
