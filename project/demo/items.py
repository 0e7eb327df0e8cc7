"""Row 13: a table as NDJSON, in constant memory."""

from django.http import HttpRequest

from realtime import NDJSONResponse, after_and_limit, json_errors

from .models import Item

FIELDS = ("id", "name", "price", "created", "uuid")


@json_errors("GET")
async def items(request: HttpRequest) -> NDJSONResponse:
    """`GET /stream/items?after=&limit=`: a line per item, in the order of their ids."""
    return NDJSONResponse(Item.objects.all(), fields=FIELDS, **after_and_limit(request))
