"""The message `authenticate`: a new credential of the same user on an open socket."""

from collections.abc import Mapping
from typing import Any

from ..access.authentication import authenticate_message
from ..access.connections import get_connections
from ..access.scopes import require_unscoped
from ..exceptions import InvalidData, NotAllowed
from . import messages as frames
from .consumers import WebSocketConsumer


async def renew(consumer: WebSocketConsumer, content: Mapping[str, Any]) -> None:
    """Replace the socket's credential by the `token` of a message, and answer when it expires.

    The token is an access token or a ticket; subscriptions that it does not allow end, and the
    limits are its own. Raises `NotIdentified` if it is not valid, `NotAllowed` if it is another
    user's and `TooManyRequests` if it has no connection left: the socket then keeps the
    credential it has.
    """
    token = content.get("token")
    if not isinstance(token, str):
        raise InvalidData("'token' is an access token or a ticket, which is a string.")
    identity = await authenticate_message(token)
    if identity.user != consumer.user:
        raise NotAllowed("This is another user's: open a socket of its own for it.")
    if not consumer.is_scoped:
        require_unscoped(identity.user)
    is_same = identity == consumer.identity  # else the registry looks by itself
    await consumer.count_for(identity)
    await consumer.recheck(identity)
    if is_same:
        # What was looked up before a change may just have taken the place of the newer user.
        get_connections().check_if_changed(identity, consumer)
    answer = {"user": identity.user.get_username(), "expires": identity.ends_at}
    await consumer.send_text(frames.reply("authenticated", frames.ref_of(content), **answer))
