"""Where topics stand, as the database has it: asked for thousands of topics every few seconds."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

from django.db import connections
from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

from .. import models
from ..events.position import Position
from .writer import alias

NAMES_PER_QUERY: Final = 500  # where each is a parameter
# By the vendor: one parameter, however many names. Those of Django take half of the time.
IS_NAMED: Final = {
    "postgresql": "name = ANY(%s::text[])",
    "sqlite": "name IN (SELECT value FROM json_each(%s))",
}


def pages_of_names(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the names in parts, each of which one statement takes."""
    size = len(names) if connections[alias()].vendor in IS_NAMED else NAMES_PER_QUERY
    for start in range(0, len(names), size or 1):
        yield names[start : start + size]


def stored_heads(names: Sequence[str]) -> dict[str, Position]:
    """Return the newest position of each topic, by one statement; without those that have none."""
    vendor = connections[alias()].vendor
    is_named = Q(name__in=names)
    if vendor in IS_NAMED:
        text = json.dumps(list(names), ensure_ascii=False)
        if vendor == "postgresql":
            text = f"{{{text[1:-1]}}}"  # its arrays are written as JSON's, but for the brackets
        is_named = Q(RawSQL(IS_NAMED[vendor], [text], output_field=BooleanField()))
    rows = models.Topic.objects.using(alias()).filter(is_named, head__gt=0)
    values = rows.values_list("name", "epoch", "head")
    return {name: Position(epoch, head) for name, epoch, head in values}
