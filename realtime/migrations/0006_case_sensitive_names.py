"""On MariaDB and MySQL names are compared without regard to case, unless their column says otherwise.

`room.a` and `room.A` are two topics, and who may read one may not read the other.
"""

from typing import Any

from django.db import migrations


def distinguish(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor != "mysql":
        return
    topic, event = (apps.get_model("realtime", name) for name in ("Topic", "Event"))
    for model, name in ((topic, "name"), (topic, "epoch"), (event, "key")):
        field = model._meta.get_field(name)
        table, column = map(schema_editor.quote_name, (model._meta.db_table, field.column))
        null = "NULL" if field.null else "NOT NULL"
        schema_editor.execute(
            f"ALTER TABLE {table} MODIFY {column} {field.db_type(schema_editor.connection)} "
            f"CHARACTER SET utf8mb4 COLLATE utf8mb4_bin {null}"
        )


class Migration(migrations.Migration):
    atomic = False  # these databases can't roll back what changes a table
    dependencies = [("realtime", "0005_event_columns")]

    operations = [migrations.RunPython(distinguish, migrations.RunPython.noop)]
