"""The identity: a user, and which credential says so."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

from django.contrib.auth.models import AnonymousUser

from .permissions import User

Authentication: TypeAlias = Literal["required", "message", "optional"]
Credential: TypeAlias = Literal["session", "header", "query", "ticket"]
EVERY_CREDENTIAL: Final[frozenset[Credential]] = frozenset({"session", "header", "query", "ticket"})
MAX_CREDENTIAL_LENGTH: Final = 200  # longer ones are not ours; not worth a hash


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, and what says so: `source` and `key` are enough to find the user again."""

    user: User
    source: Literal["session", "token", "ticket", "anonymous"]
    key: str = ""
    # When the token ends, by which alone it is not another one: it may be changed.
    expires: datetime | None = field(default=None, compare=False)

    @property
    def ends_at(self) -> str | None:
        """Return when its token ends, in ISO 8601; None where no end is known."""
        return None if self.expires is None else self.expires.isoformat()

    @property
    def token_key(self) -> str | None:
        """Of the access token it rests on, if it does; a ticket may rest on one."""
        if self.source == "token":
            return self.key
        if self.source == "ticket" and self.key.startswith("token:"):
            return self.key.removeprefix("token:")
        return None

    @property
    def session_key(self) -> str | None:
        """Of the session it rests on, if it does; a ticket may rest on one."""
        if self.source == "session":
            return self.key
        if self.source == "ticket" and self.key.startswith("session:"):
            return self.key.removeprefix("session:")
        return None


ANONYMOUS: Final = Identity(AnonymousUser(), "anonymous")


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    # 192 bits or more of chance: a fast hash is enough.
    return hashlib.sha256(secret.encode()).hexdigest()
