"""What answers where no WebSocket is: the last route of a URLRouter."""

import logging

from ..exceptions import RealtimeError
from ..server.extensions import has_denial_response
from ..utils.asgi import Receive, Scope, Send, send_json

logger = logging.getLogger("realtime.consumers")


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse the handshake with 404."""
    # Channels' router raises where no route fits, which is a 500 with a traceback.
    await receive()
    logger.info("There is no WebSocket at %r", scope["path"])  # it may have line breaks
    if has_denial_response(scope):
        content = {"code": RealtimeError.code, "detail": "There is no WebSocket at this address."}
        await send_json(send, 404, content, {}, "websocket.http.response")
    else:
        await send({"type": "websocket.close"})
