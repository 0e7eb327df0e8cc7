"""The tables of language models: answers that are published, and leases of those that are not."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..events.topic import MAX_TOPIC_LENGTH


class Generation(models.Model):
    """A language model's answer that is published to a topic. Not the prompt, and not the text."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", verbose_name=_("user")
    )
    name = models.CharField(max_length=32, unique=True)
    topic = models.CharField(_("topic"), max_length=MAX_TOPIC_LENGTH, unique=True)
    key = models.CharField(max_length=200, null=True)  # noqa: DJ001 - many have none
    digest = models.CharField(max_length=64)  # of the prompt: the same in a retry
    created = models.DateTimeField(_("created"), default=timezone.now)
    beat = models.DateTimeField(_("at work"))  # the last sign of life of the process at work
    heard = models.DateTimeField(_("listened to"))  # when a reader was last seen
    ended = models.DateTimeField(_("ended"), null=True)
    outcome = models.CharField(_("outcome"), max_length=20, blank=True)
    model = models.CharField(_("model"), max_length=100, blank=True)  # as its provider calls it
    input_tokens = models.PositiveBigIntegerField(_("input tokens"), null=True)
    output_tokens = models.PositiveBigIntegerField(_("output tokens"), null=True)

    class Meta:
        db_table = "realtime_generation"  # made by the core's migrations, before this was an app
        verbose_name = _("generated answer")
        verbose_name_plural = _("generated answers")
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["user", "key"], name="realtime_generation_key"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["ended", "beat"], name="realtime_generation_alive"),
        ]

    def __str__(self) -> str:
        return self.topic


class Lease(models.Model):
    """That a user has an answer under way on a request, in some process."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    beat = models.DateTimeField()  # the last sign of life of the process at work

    def __str__(self) -> str:
        return f"an answer of {self.user_id}"
