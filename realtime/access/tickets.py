"""Single-use tickets, which stand for a token or a session in a URL."""

import secrets
from datetime import timedelta
from typing import Any, Final

from django.utils import timezone

from ..conf import settings
from ..exceptions import NotIdentified
from ..metrics.series import Counter
from ..models import Ticket
from ..utils.primary import primary_rows
from ..utils.threads import DATABASE
from .identity import MAX_CREDENTIAL_LENGTH, Identity, digest
from .users import find_identity

ISSUED: Final = Counter("realtime_tickets_issued_total", "Tickets that were made.")
TICKET_PREFIX: Final = "tk_"  # tells it from a token where either may stand


async def create_ticket(identity: Identity) -> str:
    """Return a single-use ticket for a URL, good for `TICKET_SECONDS`; unused ones are swept here.

    It is no better than what it stands for: it has the scopes and the end of that token, and when
    the token is revoked or that session ends, what the ticket has opened is closed.
    """
    ticket = TICKET_PREFIX + secrets.token_urlsafe(24)
    await DATABASE.run(_store_ticket, identity, ticket)
    ISSUED.inc()
    return ticket


def _store_ticket(identity: Identity, ticket: str) -> None:
    now = timezone.now()
    Ticket.objects.filter(expires__lt=now).delete()
    expires = now + timedelta(seconds=settings.TICKET_SECONDS)
    user_id: Any = identity.user.pk
    # A ticket may be exchanged for another: both stand for the same.
    origin = identity.key if identity.source == "ticket" else f"{identity.source}:{identity.key}"
    Ticket.objects.create(user_id=user_id, digest=digest(ticket), origin=origin, expires=expires)


def use_ticket(ticket: str) -> Identity:
    """Return the identity of a ticket, which is gone then; raise `NotIdentified`."""
    now = timezone.now()
    key = digest(ticket[:MAX_CREDENTIAL_LENGTH])
    rows = primary_rows(Ticket).filter(digest=key, expires__gt=now)
    found = rows.first()
    identity = find_identity("ticket", found.origin) if found is not None else None
    # The delete decides: of two that come with the same ticket, one finds it gone.
    if found is None or not rows.delete()[0] or identity is None:
        raise NotIdentified(
            "The ticket is unknown, used or older than "
            f"{settings.TICKET_SECONDS} s: get a new one by POST."
        )
    return identity
