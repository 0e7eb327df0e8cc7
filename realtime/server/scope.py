"""An ASGI scope, with the contents that Daphne gives it."""

from typing import Any
from urllib.parse import unquote

from realtime.server.disconnect import DisconnectEvent
from realtime.server.extensions import DISCONNECT, FASTLANE, SERVER
from realtime.server.http_request import RequestHead
from realtime.server.root_path import normalize
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
    headers, prefix = _headers(head)
    if prefix is not None and forwarded is not None:
        root_path = prefix
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


def _headers(head: RequestHead) -> tuple[list[tuple[bytes, bytes]], str | None]:
    """Return the headers as an application gets them, and the prefix that a proxy has named."""
    headers: list[tuple[bytes, bytes]] = []
    prefix = None
    for pair in head.headers:
        name, value = pair
        if b"_" in name:
            continue  # CVE-2015-0219: it would shadow the same name with a dash
        if name == ROOT_PATH_HEADER:
            prefix = normalize(unquote(value.decode("latin1")))
        elif name == b"cookie" and (cookies := [each for each in headers if each[0] == name]):
            # RFC 9113, section 8.2.3: HTTP/2 clients send several, an application knows one.
            headers[headers.index(cookies[0])] = (name, cookies[0][1] + b"; " + value)
        else:
            headers.append(pair)
    return headers, prefix
