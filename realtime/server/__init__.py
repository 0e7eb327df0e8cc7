"""Daphne made whole: its server with backpressure, a fast lane, limits and a clean end.

It speaks ASGI and knows nothing of Django's models or settings. Importing this package does
nothing; `realtime.server.server` installs the event loop, as `daphne.server` does.
"""
