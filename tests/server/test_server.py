"""Daphne's options still do what they did."""

import json
from collections.abc import Callable

from .support import Worker

Start = Callable[..., Worker]


def test_proxy_headers_and_root_path(start: Start) -> None:
    worker = start("--proxy-headers", "--root-path", "sub/", "--server-name", "me")
    with worker.client() as client:
        client.request(
            "/sub/scope", "X-Forwarded-For: 1.2.3.4, 5.6.7.8", "X-Forwarded-Proto: https", "X: y"
        )
        response = client.response()
        scope = json.loads(response.body)
        for path in ("/scope", "/sub-scope", "/suburb/scope"):
            client.request(path)
            assert client.response().status == 404
    with worker.client() as client:
        assert client.upgrade("/scope").status == 404
    assert (scope["client"], scope["scheme"], scope["root_path"]) == (
        ["5.6.7.8", 0],  # what the proxy has seen; what is left of it is the client's own word
        "https",
        "/sub",
    )
    assert response.headers["server"] == "me"


def test_the_garbage_collector_rests_only_until_it_listens(shared: Worker) -> None:
    assert shared.status()["is_collecting"]
