"""Access tokens: a user's id, signed. Nothing is stored, so none can be taken back."""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from django.contrib.auth.models import AnonymousUser, User
from django.core import signing

SALT = "access token"
SECONDS = 30 * 86_400


def make_token(user: User) -> str:
    """A token that stands for the user."""
    return signing.dumps(user.pk, salt=SALT)


async def user_of_token(token: str) -> User | AnonymousUser:
    """The user a token stands for."""
    try:
        pk = signing.loads(token, salt=SALT, max_age=SECONDS)
        return await User.objects.aget(pk=pk, is_active=True)
    except (signing.BadSignature, User.DoesNotExist):
        return AnonymousUser()


class QueryAuthMiddleware:
    """Custom authentication, as the documentation of Channels has it: `?token=`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        query = parse_qs(scope["query_string"].decode())
        user = await user_of_token(query.get("token", [""])[0])
        await self.app({**scope, "user": user}, receive, send)
