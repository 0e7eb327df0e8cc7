"""Access tokens: a user's id, signed. Nothing is stored, so none can be taken back."""

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
        return await User.objects.aget(
            pk=signing.loads(token, salt=SALT, max_age=SECONDS), is_active=True
        )
    except (signing.BadSignature, User.DoesNotExist):
        return AnonymousUser()
