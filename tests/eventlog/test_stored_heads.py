"""`realtime.eventlog.stored_heads`: the heads of many topics, by few statements."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from realtime import models
from realtime.eventlog.stored_heads import NAMES_PER_QUERY, stored_heads

from .support import log

pytestmark = pytest.mark.django_db(transaction=True)


def test_heads_of_more_topics_than_one_statement_takes():
    names = [f"t{n}" for n in range(2 * NAMES_PER_QUERY + 1)]
    models.Topic.objects.bulk_create([models.Topic(name=name, head=7) for name in names])
    with CaptureQueriesContext(connection) as queries:
        heads = log._heads(names)
    assert len(queries) == (3 if connection.vendor == "mysql" else 1)
    assert set(heads) == set(names)
    assert {position.offset for position in heads.values()} == {7}


def test_names_are_taken_as_they_are():
    names = ["null", "NULL", "A.b-c_d", "1", "true"]
    models.Topic.objects.bulk_create([models.Topic(name=name, head=7) for name in names])
    assert set(stored_heads([*names, "other", 'quo"te', "back\\slash", "{}", ","])) == set(names)
    assert stored_heads([]) == {}
