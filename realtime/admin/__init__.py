"""Topics, events, access tokens and what is live in Django's admin."""

from .event_admin import EventAdmin as EventAdmin
from .event_admin import TopicAdmin as TopicAdmin
from .live_admin import ProcessAdmin as ProcessAdmin
from .token_admin import AccessTokenAdmin as AccessTokenAdmin
