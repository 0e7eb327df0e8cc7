"""An ASGI scope, with the contents that Daphne gives it."""

from typing import Any
from urllib.parse import unquote

from realtime.server.disconnect import DisconnectEvent
from realtime.server.extensions import DISCONNECT, FASTLANE, SERVER
from realtime.server.http_request import RequestHead
from realtime.server.sendfile import EXTENSIONS
from realtime.server.state import ServerState
from realtime.server.transport import Address, Transport

ROOT_PATH_HEADER = b"daphne-root-path"  # Daphne believes it of anyone, who then sets all links


def build(
    kind: str, head: RequestHead, transport: Transport, gone: DisconnectEvent, server: ServerState
) -> dict[str, Any]:
    """Return the scope of a request (`http`) or a handshake (`websocket`)."""
    root_path = server.root_path
    forwarded = server.forwarded
    if forwarded is not None and not forwarded.trusts(transport.peer):
        forwarded = None
    headers = []
    for pair in head.headers:
        name = pair[0]
        if b"_" in name:
            continue  # CVE-2015-0219: it would shadow the same name with a dash
        if name != ROOT_PATH_HEADER:
            headers.append(pair)
        elif forwarded is not None:
            root_path = unquote(pair[1].decode("latin1"))
    secure = transport.secure
    client: Address = transport.peer
    if forwarded is not None:
        client, secure = forwarded.read(head.headers, client, secure)
    path = head.path.decode("ascii")
    scheme = ("wss" if secure else "ws") if kind == "websocket" else "https" if secure else "http"
    built: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1" if head.minor else "1.0",
        "scheme": scheme,
        "path": unquote(path) if "%" in path else path,
        "raw_path": head.path,
        "root_path": root_path,
        "query_string": head.query,
        "headers": headers,
        "client": client,
        "server": transport.host,
        "extensions": {DISCONNECT: {"event": gone}, SERVER: server.scope_extension},
    }
    if transport.lane is not None:
        built["extensions"][FASTLANE] = {"lane": transport.lane}
    if kind == "http":
        if transport.copies_files:
            built["extensions"] |= EXTENSIONS
        built["method"] = head.method.decode("ascii")
    return built
