"""Rows worth streaming."""

import uuid

from django.db import models


class Item(models.Model):
    """Something in a shop."""

    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    created = models.DateTimeField()
    uuid = models.UUIDField(default=uuid.uuid4)

    def __str__(self) -> str:
        return self.name
