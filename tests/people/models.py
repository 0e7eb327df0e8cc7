"""User models that Django allows, of which a site has one."""

import uuid
from typing import ClassVar

from django.contrib.auth.models import AbstractBaseUser
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models


class Switch(AbstractBaseUser):
    """No field says who is active: `is_active` is AbstractBaseUser's own class attribute."""

    name = models.CharField(max_length=50, unique=True)
    USERNAME_FIELD = "name"


class Plain(models.Model):
    """Nothing of Django's: what its documentation asks for, and no `is_active` at all."""

    name = models.CharField(max_length=50, unique=True)
    is_authenticated = True
    is_anonymous = False
    USERNAME_FIELD = "name"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.name


class Named(models.Model):
    """What a Child is too."""

    name = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.name


class Child(Named, AbstractBaseUser):
    """A row in two tables, whose key is the other's."""

    USERNAME_FIELD = "name"

    def __str__(self) -> str:
        return self.name


class Keyed(AbstractBaseUser):
    """Its key is no number, and a method computes who is active."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50, unique=True)
    has_left = models.BooleanField(default=False)
    USERNAME_FIELD = "name"

    @property
    def is_active(self) -> bool:  # type: ignore[override]
        return not self.has_left


class Alias(Keyed):
    """The same row by another class."""

    class Meta:
        proxy = True


class Member(Keyed):
    """A row more, with a key of its own."""

    keyed = models.OneToOneField(Keyed, models.CASCADE, parent_link=True)
    number = models.AutoField(primary_key=True)


class Visit(AbstractBaseSession):
    """A session in a table of the site's own."""

    @classmethod
    def get_session_store_class(cls) -> type[SessionBase]:
        from .sessions import SessionStore

        return SessionStore


class Present(models.Manager["Kept"]):
    """Those who have not left."""

    def get_queryset(self) -> models.QuerySet["Kept"]:
        return super().get_queryset().filter(has_left=False)


class Kept(AbstractBaseUser):
    """A row that stays when its user is deleted, and that the default manager hides then."""

    name = models.CharField(max_length=50, unique=True)
    has_left = models.BooleanField(default=False)
    USERNAME_FIELD = "name"
    objects: ClassVar[models.Manager["Kept"]] = Present()
