"""The tables: topics, their events, access tokens and tickets."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .events.payload import DEFAULT_TYPE, MAX_TYPE_LENGTH
from .events.position import new_epoch
from .events.topic import MAX_TOPIC_LENGTH


class Topic(models.Model):
    """A named sequence of events. Its row lock is what puts appends in order."""

    name = models.CharField(_("name"), max_length=MAX_TOPIC_LENGTH, unique=True)
    epoch = models.CharField(_("epoch"), max_length=16, default=new_epoch, editable=False)
    head = models.BigIntegerField(_("head"), default=0, editable=False)
    created = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("topic")
        verbose_name_plural = _("topics")

    def __str__(self) -> str:
        return self.name


class Event(models.Model):
    """One event; `offset` counts from 1 without gaps within the topic's epoch."""

    topic = models.ForeignKey(
        Topic, models.CASCADE, related_name="events", verbose_name=_("topic"), db_index=False
    )
    offset = models.BigIntegerField(_("offset"))
    type = models.CharField(_("type"), max_length=MAX_TYPE_LENGTH, default=DEFAULT_TYPE)
    # Text, not JSONField: the bytes that were published are the bytes that are sent, and
    # PostgreSQL's jsonb would refuse the escaped NUL that JSON allows.
    data = models.TextField(_("data"))
    created = models.DateTimeField(_("created"), default=timezone.now)
    # Of the append that stored it: tells after a lost answer whether it did (eventlog/writer.py).
    batch = models.BigIntegerField(null=True, editable=False)
    meta = models.TextField(null=True, editable=False)  # noqa: DJ001 - JSON; most have none
    key = models.CharField(max_length=200, null=True, editable=False)  # noqa: DJ001 - as meta

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["topic", "offset"], name="realtime_event_offset"),
        ]

    def __str__(self) -> str:
        return f"{self.topic_id}-{self.offset}"


class AccessToken(models.Model):
    """A bearer token of a user. Only its digest is kept: the token is shown once, when made."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        related_name="realtime_tokens",
        verbose_name=_("user"),
    )
    name = models.CharField(_("name"), max_length=100, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    expires = models.DateTimeField(_("expires"), null=True, blank=True)
    last_used = models.DateTimeField(_("last used"), null=True, editable=False)
    revoked = models.DateTimeField(_("revoked"), null=True, editable=False)

    class Meta:
        verbose_name = _("access token")
        verbose_name_plural = _("access tokens")

    def __str__(self) -> str:
        return self.name or f"token {self.pk}"


class Ticket(models.Model):
    """A single-use stand-in for a user's credentials in a URL; its digest alone is kept."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    origin = models.TextField()  # what it stands for, as "token:<pk>" or "session:<key>"
    expires = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("ticket")
        verbose_name_plural = _("tickets")

    def __str__(self) -> str:
        return f"ticket {self.pk}"
