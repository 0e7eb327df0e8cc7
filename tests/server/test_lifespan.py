"""`realtime.server.lifespan`: what is done before a worker counts as ready."""

import logging

from realtime.server import lifespan as startup

from .support import Worker


def test_it_is_done_once_before_the_server_is_ready_whatever_fails() -> None:
    worker = Worker(app="tests.server.startup_apps")
    worker.expected = ["A callback failed at the start of the server"]
    try:
        assert worker.get("/") == b"main thread, no loop"
        assert worker.text.count("A callback failed at the start of the server") == 1
    finally:
        worker.stop()


def test_an_error_is_logged_and_the_rest_is_done(caplog, monkeypatch) -> None:
    done: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(startup, "CALLBACKS", [fail, lambda: done.append(1)])
    with caplog.at_level(logging.ERROR):
        startup.run()
    assert done == [1]
    assert caplog.text.count("failed at the start") == 1
