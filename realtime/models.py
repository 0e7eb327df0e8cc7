"""The tables: topics, events, keys, the outbox, tokens, tickets, processes, and who is there."""

from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .conf.token_scopes import find_problem_of_scopes
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

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["topic", "offset"], name="realtime_event_offset"),
        ]

    def __str__(self) -> str:
        return f"{self.topic_id}-{self.offset}"


class IdempotencyKey(models.Model):
    """What came with a publisher's key. It outlives the event, which retention may drop sooner."""

    topic = models.ForeignKey(Topic, models.CASCADE, related_name="+", db_index=False)
    digest = models.CharField(max_length=64)  # of the publisher and the key
    content = models.CharField(max_length=64)  # a digest of the event's type and data
    offset = models.BigIntegerField()
    created = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["topic", "digest"], name="realtime_idempotency_key"),
        ]

    def __str__(self) -> str:
        return f"key of {self.topic_id}-{self.offset}"


NEEDS_SCOPES = _("A token without a user needs scopes: it may do what they say, and no more.")


class AccessToken(models.Model):
    """A bearer token of a user, or of a service that is nobody's.

    Only its digest is kept: the token is shown once, when made.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="realtime_tokens",
        verbose_name=_("user"),
        help_text=_("Nobody: a service, which may do what its scopes say."),
    )
    name = models.CharField(_("name"), max_length=100, blank=True)
    scopes = models.TextField(
        _("scopes"),
        blank=True,
        default="",
        db_default="",  # servers of the release before go on making tokens
        help_text=_(
            "What it may do of what its user may, as “publish:room.* read:orders.*”; the actions "
            "are read, publish and presence. Empty: all of it."
        ),
    )
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    expires = models.DateTimeField(_("expires"), null=True, blank=True)
    last_used = models.DateTimeField(_("last used"), null=True, editable=False)
    revoked = models.DateTimeField(_("revoked"), null=True, editable=False)
    # When another one was made in its place; it goes on for a while.
    rotated = models.DateTimeField(_("rotated"), null=True, editable=False)

    class Meta:
        verbose_name = _("access token")
        verbose_name_plural = _("access tokens")

    def __str__(self) -> str:
        return self.name or f"token {self.pk}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and raise `ValidationError` for what can't be: most tokens are made by no form."""
        if self.revoked is None:
            self.clean()
        super().save(*args, **kwargs)

    def clean(self) -> None:
        """Raise `ValidationError` for wrong scopes, and a service without any or a name."""
        self.scopes = " ".join(self.scopes.split())
        if problem := find_problem_of_scopes(self.scopes, is_service=self.user_id is None):
            raise ValidationError({"scopes": " ".join(problem)})
        if self.user_id is None and not self.scopes:
            raise ValidationError({"scopes": NEEDS_SCOPES})
        if self.user_id is None and not self.name:
            raise ValidationError(
                {"name": _("A token without a user needs a name: the service's.")}
            )


class Ticket(models.Model):
    """A single-use stand-in for credentials in a URL; its digest alone is kept."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    origin = models.TextField()  # what it stands for, as "token:<pk>" or "session:<key>"
    expires = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("ticket")
        verbose_name_plural = _("tickets")

    def __str__(self) -> str:
        return f"ticket {self.pk}"


class OutboxEntry(models.Model):
    """What a transaction has published to a log outside of the database, until it is stored."""

    process = models.CharField(max_length=40)  # that stores it: the first one by its name
    events = models.TextField()  # JSON
    created = models.DateTimeField(db_index=True)  # or taken over

    class Meta:
        verbose_name = _("outbox entry")
        verbose_name_plural = _("outbox entries")

    def __str__(self) -> str:
        return f"outbox entry {self.pk}"


class Process(models.Model):
    """A process that listens, for as long as it writes `beat`."""

    name = models.CharField(max_length=40, unique=True)  # ends with the process id
    host = models.CharField(max_length=255)
    version = models.CharField(max_length=40)  # of this package
    started = models.DateTimeField()
    # Without an index: there are few rows, and PostgreSQL writes a new version where it stands.
    beat = models.DateTimeField()
    # Of a process that says so (`processes.status`); one of an earlier release does not.
    connections = models.IntegerField(null=True)
    loop_lag = models.FloatField(null=True)
    bus_failure = models.CharField(max_length=100, db_default="")

    class Meta:
        verbose_name = _("process")
        verbose_name_plural = _("processes")
        permissions = [
            ("view_live", "Can see the live page: processes, topics, connections"),
            ("view_address", "Can see the addresses of live connections"),
            ("disconnect_user", "Can end the live connections of a user"),
        ]

    def __str__(self) -> str:
        return self.name


class Presence(models.Model):
    """How often a user is on a topic, as one process says; only that process writes the row."""

    topic = models.CharField(max_length=MAX_TOPIC_LENGTH)
    process = models.CharField(max_length=40)
    key = models.CharField(max_length=255)  # of the user; empty for those without one
    connections = models.IntegerField()
    info = models.TextField()  # what the others see, as JSON
    changed = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("presence")
        verbose_name_plural = _("presences")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["topic", "process", "key"], name="realtime_presence_key"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["key"], name="realtime_presence_user"),
        ]

    def __str__(self) -> str:
        return f"{self.key} on {self.topic}"
