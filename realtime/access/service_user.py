"""The user of a service token, which is a program's own and stands for no person."""

from django.contrib.auth.models import AnonymousUser


class ServiceUser(AnonymousUser):
    """An anonymous user with the name of a service: the scopes of its token alone decide."""

    def __init__(self, name: str) -> None:
        self.username = name  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.username

    # Two tokens of one name are of the same service: the second came by rotation.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceUser) and other.username == self.username

    def __hash__(self) -> int:
        return hash(self.username)
