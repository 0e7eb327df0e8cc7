"""`python -m realtime.server project.asgi:application`: Daphne's command line, this server."""

from realtime.server.cli import CommandLineInterface

CommandLineInterface.entrypoint()
