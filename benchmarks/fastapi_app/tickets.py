"""Row 3: a ticket for a URL, in place of the token itself."""

from fastapi import APIRouter
from pydantic import BaseModel

from .auth import SignedIn
from .credentials import TICKET_SECONDS, make_ticket

router = APIRouter()


class Ticket(BaseModel):
    """Good once, and not for long."""

    ticket: str
    expires_in: int = TICKET_SECONDS


@router.post("/realtime/tickets", status_code=201)
async def tickets(user: SignedIn) -> Ticket:
    """A ticket for who is signed in."""
    return Ticket(ticket=await make_ticket(user))
