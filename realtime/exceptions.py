"""What can go wrong, in one tree.

RealtimeError
├── InvalidTopic            the name is outside the alphabet or too long
├── InvalidData             not a JSON value, or too large
│   └── DataTooLarge
├── InvalidEventType        an event's type that no wire format could carry
├── InvalidKey              an idempotency key that is empty, too long or of no use here
├── KeyReused               an idempotency key that came with something else before
├── SeveralPartitions       topics of one batch that a cluster can't store together
├── PresenceOff             it is not kept who reads a topic
├── InvalidPosition         an event id that this log never wrote
├── InvalidHost             a host that is not one of this site's
├── InvalidPrompt           a language model can't be asked this
├── HistoryGone             the log no longer reaches back to a position
├── OutcomeUnknown          an event may be stored, or not
├── DatabaseUnavailable     the database can't be asked just now
├── NotIdentified           nobody is signed in, or the credentials are no good
├── NotAllowed              signed in, but not permitted
├── TooManyRequests         as much as is allowed is under way already
│   └── RateLimited         it comes faster than it may
└── ProviderError           a language model's provider failed to answer
    └── ProviderUnavailable

RealtimeConfigurationError  a setting is wrong (an ImproperlyConfigured)
└── MissingPackage          what is used needs a package that is not installed (an ImportError)
"""

from collections.abc import Iterable
from math import ceil

from django.core.exceptions import ImproperlyConfigured


class RealtimeError(Exception):
    """Base of everything this package raises on purpose; its text is fit for a client to read.

    `code` is what an error frame and HTTP's JSON call it, `status` and `headers` what HTTP answers
    with it, and `close_code` what a WebSocket is closed with where it can't stay open.
    """

    code = "error"
    status = 400
    close_code = 4400

    @property
    def headers(self) -> dict[str, str]:
        """Return the header fields that belong to the answer."""
        return {}

    @property
    def fields(self) -> dict[str, object]:
        """Return what else its error frame has."""
        return {}


class InvalidTopic(RealtimeError, ValueError):
    """The topic's name is outside the alphabet or too long."""

    code = "bad_topic"


class InvalidData(RealtimeError, ValueError):
    """The data is not a JSON value; nothing was stored."""

    code = "bad_message"


class DataTooLarge(InvalidData):
    """The data's JSON text is over `MAX_EVENT_BYTES`; nothing was stored."""

    code = "too_large"
    status = 413


class InvalidEventType(RealtimeError, ValueError):
    """The event's type is empty, too long or holds a character no wire format could carry."""

    code = "bad_event"


class InvalidKey(RealtimeError, ValueError):
    """The idempotency key is empty, too long, holds control characters or is of no use here."""

    code = "bad_key"


class KeyReused(RealtimeError):
    """The key came with other data, another type or another prompt before; nothing was stored."""

    code = "key_reused"
    status = 409

    def __init__(self, key: str, first: str = "another type or other data") -> None:
        super().__init__(
            f"The key {key!r} came with {first} before: nothing was stored. Use a new key each "
            "time, and the same one only to send the same again."
        )


class SeveralPartitions(RealtimeError):
    """The topics of a batch are on several nodes of a Redis cluster; nothing was stored."""

    code = "several_partitions"

    def __init__(self, topics: Iterable[str]) -> None:
        super().__init__(
            f"{', '.join(sorted({*topics}))} are in several partitions of the log's cluster, which "
            "can't store their events together: nothing was stored. Publish to each topic by "
            "itself, or give the log one partition (REDIS_LOG_PARTITIONS = 1)."
        )


class PresenceOff(RealtimeError):
    """It is not kept who reads the topic."""

    code = "presence_off"
    status = 404

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"It is not kept who is on {topic!r}. Where it should be, its pattern in TOPICS has "
            "'PRESENCE': True."
        )


class InvalidPosition(RealtimeError, ValueError):
    """The event id is not one that this log could have written."""

    code = "bad_id"


class InvalidHost(RealtimeError):
    """The request was sent to a host that ALLOWED_HOSTS does not have."""

    code = "bad_host"


class HistoryGone(RealtimeError):
    """The log no longer holds what followed the position; the reader has to start afresh."""

    code = "history_gone"
    status = 410


class OutcomeUnknown(RealtimeError):
    """The database did not say whether it has stored the event, and could not be asked since."""

    code = "unknown"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The event may have been stored: the database did not answer in time. With a key it "
            "can be published again, and is stored once."
        )


class DatabaseUnavailable(RealtimeError):
    """The database can't be asked just now; what was asked for has not happened."""

    code = "unavailable"
    status = 503
    close_code = 1011

    def __init__(self) -> None:
        super().__init__("The database can't be asked just now: try again.")

    @property
    def headers(self) -> dict[str, str]:
        """Return when to come back (RFC 9110, section 10.2.3)."""
        return {"Retry-After": "2"}


class InvalidPrompt(RealtimeError, ValueError):
    """The prompt is missing, empty or too long; the provider was not asked."""

    code = "bad_prompt"


class NotIdentified(RealtimeError):
    """Nobody is signed in, or the credentials sent are unknown, expired or revoked."""

    code = "not_identified"
    status = 401
    close_code = 4401

    @property
    def headers(self) -> dict[str, str]:
        """Return the challenge (RFC 9110, section 11.6.1)."""
        return {"WWW-Authenticate": "Bearer"}


class NotAllowed(RealtimeError):
    """The user is known and may not do this."""

    code = "not_allowed"
    status = 403
    close_code = 4403


class TooManyRequests(RealtimeError):
    """As much as is allowed is under way already; `retry_after` is in seconds."""

    code = "too_many"
    status = 429
    close_code = 4429

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Return when to come back, in whole seconds (RFC 9110, section 10.2.3)."""
        return {"Retry-After": str(ceil(self.retry_after))}

    @property
    def fields(self) -> dict[str, object]:
        """Return when to come back."""
        return {"retry_after": self.retry_after}


class RateLimited(TooManyRequests):
    """It comes faster than it may (`RATE_...`); this one was refused, and nothing else.

    `is_hammering`: so many were refused that its sender does not hear.
    """

    code = "rate_limited"

    def __init__(self, detail: str, retry_after: float, *, is_hammering: bool = False) -> None:
        super().__init__(detail, retry_after)
        self.is_hammering = is_hammering


class ProviderError(RealtimeError):
    """A language model's provider failed to answer; the text is ours, never the provider's."""

    code = "provider"
    status = 503


class ProviderUnavailable(ProviderError):
    """There is no provider that could be asked: its SDK or its key is missing."""


class RealtimeConfigurationError(ImproperlyConfigured):
    """A setting of this package is wrong; the text says which and what to write instead."""


class MissingPackage(RealtimeConfigurationError, ImportError):
    """What is used needs a package that this one does without."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}, which is not installed: pip install {package} "
            f"(or this package with its extra [{extra}])."
        )
