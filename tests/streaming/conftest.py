"""A table for the tests of what a database writes."""

from collections.abc import Iterator

import pytest
from django.db import connection

from .sql_json.support import Thing


@pytest.fixture
def table(transactional_db: None) -> Iterator[None]:
    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Thing)


@pytest.fixture
def sqlite(table: None) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("other databases have a type for it")
