"""Rows worth streaming."""

import uuid

from django.db import models
from django.utils import timezone


class Item(models.Model):
    """Something in a shop; it has the types that JSON does not (decimal, date, UUID)."""

    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    created = models.DateTimeField(default=timezone.now)
    uuid = models.UUIDField(default=uuid.uuid4, editable=False)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.name
