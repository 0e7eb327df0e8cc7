"""Durable topics for Django: every event is logged, numbered and delivered once, in order.

The public names. Each is imported when it is first used (PEP 562), so that `import realtime` loads
neither Django nor asyncio, and an app may stand in INSTALLED_APPS under this name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .access.authentication import authenticate as authenticate
    from .access.permissions import default_rule as default_rule
    from .access.permissions import require as require
    from .access.scopes import require_unscoped as require_unscoped
    from .access.tokens import create_token as create_token
    from .access.user_info import default_info as default_info
    from .access.user_info import publisher_of as publisher_of
    from .access.user_info import sender_meta as sender_meta
    from .delivery.heads import aposition as aposition
    from .delivery.heads import position as position
    from .delivery.progress import Progress as Progress
    from .delivery.publish import apublish as apublish
    from .delivery.publish import asend_to_user as asend_to_user
    from .delivery.publish import publish as publish
    from .delivery.publish import publish_now as publish_now
    from .delivery.publish import send_to_user as send_to_user
    from .delivery.publish_many import Publication as Publication
    from .delivery.publish_many import apublish_many as apublish_many
    from .delivery.publish_many import publish_many as publish_many
    from .delivery.publish_many import publish_many_now as publish_many_now
    from .delivery.subscription import Subscription as Subscription
    from .delivery.topic_subscriber import Reset as Reset
    from .delivery.topic_subscriber import Started as Started
    from .events.event import Event as Event
    from .events.payload import decode_data as decode_data
    from .events.position import Position as Position
    from .events.topic import user_topic as user_topic
    from .exceptions import HistoryGone as HistoryGone
    from .exceptions import InvalidData as InvalidData
    from .exceptions import InvalidKey as InvalidKey
    from .exceptions import InvalidPrompt as InvalidPrompt
    from .exceptions import InvalidTopic as InvalidTopic
    from .exceptions import KeyReused as KeyReused
    from .exceptions import NotAllowed as NotAllowed
    from .exceptions import NotIdentified as NotIdentified
    from .exceptions import ProviderError as ProviderError
    from .exceptions import RealtimeError as RealtimeError
    from .exceptions import TooManyRequests as TooManyRequests
    from .http.requests import error_response as error_response
    from .http.requests import json_errors as json_errors
    from .http.requests import require_user as require_user
    from .metrics.json_formatter import JSONFormatter as JSONFormatter
    from .presence.members import ais_online as ais_online
    from .presence.members import amembers as amembers
    from .presence.members import is_online as is_online
    from .presence.members import members as members
    from .streaming.csv_export import CSVResponse as CSVResponse
    from .streaming.files import FileStreamResponse as FileStreamResponse
    from .streaming.ndjson import NDJSONResponse as NDJSONResponse
    from .streaming.ndjson import after_and_limit as after_and_limit
    from .streaming.response import EventStreamResponse as EventStreamResponse
    from .streaming.response import StreamResponse as StreamResponse
    from .streaming.response import keep_alive as keep_alive
    from .streaming.sources import open_file as open_file
    from .streaming.sources import open_stored as open_stored
    from .streaming.sse import encode_sse as encode_sse
    from .streaming.zip_export import Member as Member
    from .streaming.zip_export import ZipResponse as ZipResponse
    from .streaming.zip_export import files_below as files_below
    from .utils.postgresql import WatchedConnection as WatchedConnection
    from .websocket.consumers import WebSocketConsumer as WebSocketConsumer
    from .websocket.renewal import renew as renew
    from .websocket.topic_consumers import MultiplexConsumer as MultiplexConsumer
    from .websocket.topic_consumers import TopicConsumer as TopicConsumer

__version__ = "0.1.0"

_PLACES: Final = {
    "access.authentication": "authenticate",
    "access.permissions": "require default_rule",
    "access.scopes": "require_unscoped",
    "access.tokens": "create_token",
    "access.user_info": "default_info publisher_of sender_meta",
    "delivery.heads": "position aposition",
    "delivery.progress": "Progress",
    "delivery.publish": "publish apublish publish_now send_to_user asend_to_user",
    "delivery.publish_many": "publish_many apublish_many publish_many_now Publication",
    "delivery.subscription": "Subscription",
    "delivery.topic_subscriber": "Started Reset",
    "events.event": "Event",
    "events.payload": "decode_data",
    "events.position": "Position",
    "events.topic": "user_topic",
    "exceptions": (
        "RealtimeError NotAllowed NotIdentified InvalidData InvalidKey InvalidTopic InvalidPrompt "
        "HistoryGone KeyReused TooManyRequests ProviderError"
    ),
    "http.requests": "require_user json_errors error_response",
    "metrics.json_formatter": "JSONFormatter",
    "presence.members": "members amembers is_online ais_online",
    "streaming.csv_export": "CSVResponse",
    "streaming.files": "FileStreamResponse",
    "streaming.ndjson": "NDJSONResponse after_and_limit",
    "streaming.response": "StreamResponse EventStreamResponse keep_alive",
    "streaming.sources": "open_file open_stored",
    "streaming.sse": "encode_sse",
    "streaming.zip_export": "Member ZipResponse files_below",
    "utils.postgresql": "WatchedConnection",
    "websocket.consumers": "WebSocketConsumer",
    "websocket.renewal": "renew",
    "websocket.topic_consumers": "TopicConsumer MultiplexConsumer",
}
_MODULES: Final = {name: module for module, names in _PLACES.items() for name in names.split()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import the module of a public name, and return what it is there."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names beside what has been imported already."""
    return sorted({*globals(), *__all__})
