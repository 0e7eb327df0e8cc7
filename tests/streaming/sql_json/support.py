"""A table with a column of each kind, and its lines by the database, a response and Django."""

import uuid
from collections.abc import Sequence
from typing import Any

from asgiref.sync import async_to_sync
from django.db import models
from django.db.models import QuerySet

from realtime.streaming.json_columns import encode_lines
from realtime.streaming.ndjson import NDJSONResponse
from realtime.streaming.sql_json import Lines

FIELDS = ("id", "text", "price", "count", "at", "day", "key", "flag", "number", "parent_id")
OTHERS = ("ratio", "tiny", "data")  # Python writes these
MIXED = ("ratio", "id", "text", "tiny", "data", "price", "wide", "at")


class Thing(models.Model):  # noqa: DJ008
    """A column of each kind; one of each may be NULL, and some may not."""

    text = models.CharField(max_length=50, null=True)  # noqa: DJ001
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    count = models.PositiveIntegerField(default=0)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    key = models.UUIDField(default=uuid.uuid4)
    flag = models.BooleanField(null=True)
    number = models.BigIntegerField(null=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True)
    tiny = models.DecimalField(max_digits=12, decimal_places=9, null=True)
    wide = models.DecimalField(max_digits=30, decimal_places=4, null=True)
    ratio = models.FloatField(null=True)
    data = models.JSONField(null=True)

    class Meta:
        app_label = "tests"


class ThingView(models.Model):  # noqa: DJ008
    """The same, and nothing may be NULL."""

    text = models.CharField(max_length=50)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    count = models.PositiveIntegerField()
    at = models.DateTimeField()
    day = models.DateField()
    key = models.UUIDField()
    flag = models.BooleanField()
    number = models.BigIntegerField()
    parent = models.ForeignKey(Thing, models.DO_NOTHING)
    ratio = models.FloatField()

    class Meta:
        app_label = "tests"
        managed = False
        db_table = "view_of_things"


def written(
    names: Sequence[str] = FIELDS, rows: QuerySet[Any] | None = None, size: int = 2
) -> list[str] | None:
    """As the database has it, in pages; None where it leaves one to Python."""
    lines = Lines.of(Thing.objects.all() if rows is None else rows, names)
    if lines is None:
        return None
    text, last, got = "", None, size
    while got == size:
        page = lines.fetch(last, size)
        if page is None:
            return None
        assert page.data.count(b"\n") == page.rows
        text, last, got = text + page.data.decode(), page.last, page.rows
    return text.split("\n")[:-1]


def sent(names: Sequence[str] = FIELDS) -> list[str]:
    """As a response has it, whoever writes it."""

    async def body() -> bytes:
        response = NDJSONResponse(Thing.objects.all(), fields=names)
        return b"".join([part async for part in response])

    return async_to_sync(body)().decode().split("\n")[:-1]


def standard(names: Sequence[str] = FIELDS) -> list[str]:
    """As Django has it."""
    rows = Thing.objects.order_by("pk").values(*names)
    return encode_lines(rows).decode().split("\n")[:-1]
