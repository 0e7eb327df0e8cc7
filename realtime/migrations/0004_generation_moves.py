"""Hand the model Generation over to `realtime.llm`; its table stays as it is, with its rows.

Content types and permissions follow, so that users and groups keep what they were given.
Sites without `realtime.llm` keep the table too, unused.
"""

from typing import Any

from django.apps import apps as installed
from django.db import migrations, router

CONTENT_TYPES = installed.is_installed("django.contrib.contenttypes")


def move(apps: Any, schema_editor: Any, old: str, new: str) -> None:
    """Give the content type of the app `old`, and so its permissions, to the app `new`."""
    alias = schema_editor.connection.alias
    if not CONTENT_TYPES or not router.allow_migrate(
        alias, "contenttypes", model_name="contenttype"
    ):
        return
    rows = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    if rows.filter(app_label=old, model="generation").exists():
        # Where both exist, the old one has the permissions that were given to somebody.
        rows.filter(app_label=new, model="generation").delete()
        rows.filter(app_label=old, model="generation").update(app_label=new)


def forwards(apps: Any, schema_editor: Any) -> None:
    """Move to `realtime.llm`."""
    move(apps, schema_editor, "realtime", "realtime_llm")


def backwards(apps: Any, schema_editor: Any) -> None:
    """Move back to the core."""
    move(apps, schema_editor, "realtime_llm", "realtime")


class Migration(migrations.Migration):
    dependencies = [("realtime", "0003_generation_model")]
    if CONTENT_TYPES:
        dependencies.append(("contenttypes", "0002_remove_content_type_name"))

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.DeleteModel(name="Generation")]
        ),
        migrations.RunPython(forwards, backwards),
    ]
