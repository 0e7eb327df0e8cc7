"""What a site below a path answers, by function."""

from typing import Any

import pytest

from realtime.server.root_path import below_root_path, normalize


async def site(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "the site's"})


async def sent(kind: str, path: str, root_path: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await below_root_path(site)({"type": kind, "path": path, "root_path": root_path}, None, send)
    return messages


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("path", "root_path"), [("/a", ""), ("/app", "/app"), ("/app/", "/app"), ("/app/a", "/app")]
)
async def test_what_is_below_it_comes_to_the_site(kind: str, path: str, root_path: str) -> None:
    assert await sent(kind, path, root_path) == [{"type": "the site's"}]


@pytest.mark.parametrize("path", ["/", "/a", "/appadmin/", "/ap", "/App/"])
async def test_what_is_outside_is_not_found(path: str) -> None:
    start, body = await sent("http", path, "/app")
    assert (start["type"], start["status"]) == ("http.response.start", 404)
    assert body["body"] == b"This site is below /app/.\n"
    start, body = await sent("websocket", path, "/app")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)


@pytest.mark.parametrize("given", ["app", "/app", "app/", "/app/"])
def test_however_it_is_written(given: str) -> None:
    assert normalize(given) == "/app"


@pytest.mark.parametrize("given", ["", "/"])
def test_none_is_the_hosts_own_root(given: str) -> None:
    assert normalize(given) == ""
