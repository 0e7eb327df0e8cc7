"""Durable topics for Django: every event is logged, numbered and delivered once, in order."""

__version__ = "0.1.0"
