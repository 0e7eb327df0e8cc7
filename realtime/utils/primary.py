"""Rows as they are where they are written: a replica that a site's router reads may be behind."""

from typing import TypeVar

from django.db import router
from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def primary_rows(model: type[M]) -> QuerySet[M]:
    """Return the rows of a model's default manager, to be read where they are written."""
    rows: QuerySet[M] = model._default_manager.using(router.db_for_write(model))
    return rows
