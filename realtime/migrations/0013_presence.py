from typing import Any

from django.db import migrations, models


def distinguish(apps: Any, schema_editor: Any) -> None:
    """Compare names with regard to case, which MariaDB and MySQL do only where a column says so."""
    if schema_editor.connection.vendor != "mysql":
        return
    model = apps.get_model("realtime", "Presence")
    for name in ("topic", "process", "key"):
        field = model._meta.get_field(name)
        table, column = map(schema_editor.quote_name, (model._meta.db_table, field.column))
        schema_editor.execute(
            f"ALTER TABLE {table} MODIFY {column} {field.db_type(schema_editor.connection)} "
            "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
        )


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0012_process_status"),
    ]

    operations = [
        migrations.CreateModel(
            name="Presence",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("topic", models.CharField(max_length=99)),
                ("process", models.CharField(max_length=40)),
                ("key", models.CharField(max_length=255)),
                ("connections", models.IntegerField()),
                ("info", models.TextField()),
                ("changed", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name": "presence",
                "verbose_name_plural": "presences",
                "indexes": [models.Index(fields=["key"], name="realtime_presence_user")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("topic", "process", "key"), name="realtime_presence_key"
                    )
                ],
            },
        ),
        # These databases can't roll back what changes a table.
        migrations.RunPython(distinguish, migrations.RunPython.noop, atomic=False),
    ]
