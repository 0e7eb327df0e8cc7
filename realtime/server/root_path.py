"""What a site below a path of its host answers, and what it doesn't (ASGI's `root_path`)."""

from collections.abc import Callable, Coroutine
from typing import Any

Application = Callable[..., Coroutine[Any, Any, None]]


def normalize(root_path: str) -> str:
    """Return it with a slash before and none after it; the host's own root is empty."""
    inner = root_path.strip("/")
    return f"/{inner}" if inner else ""


def below_root_path(application: Application) -> Application:
    """Return `application`, to which no path outside of its scope's `root_path` comes: 404.

    `/app` is a prefix of `/application` too: cut off, it would leave a path of the site that the
    rules of a proxy for paths have not seen.
    """

    def run(scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        root_path, path = scope["root_path"], scope["path"]
        if not root_path or path == root_path or path.startswith(f"{root_path}/"):
            return application(scope, receive, send)
        return _not_found(scope, send)

    return run


async def _not_found(scope: Any, send: Any) -> None:
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    detail = f"This site is below {scope['root_path']}/.\n"
    await send({"type": f"{kind}.start", "status": 404, "headers": headers})
    await send({"type": f"{kind}.body", "body": detail.encode()})
