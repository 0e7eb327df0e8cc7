"""The comparison: the chapter in FastAPI, in stock Channels, and here. `python -m benchmarks`."""
