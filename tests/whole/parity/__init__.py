"""One suite over real sockets, run against this project, its FastAPI twin and stock Channels."""
