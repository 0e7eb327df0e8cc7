"""`python -m realtime.server project.asgi:application`: Daphne's command line, this server."""

import gc
import os

# What is imported stays: to look through it again and again is a tenth of the time to start.
gc.disable()  # until the server listens
# As long takes what Autobahn compiles at its import, in C, and nobody uses here.
os.environ.setdefault("AUTOBAHN_USE_NVX", "0")

from realtime.server.cli import CommandLineInterface  # noqa: E402 - after the above

CommandLineInterface.entrypoint()
