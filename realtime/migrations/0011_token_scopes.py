from typing import Any

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def delete_services(apps: Any, schema_editor: Any) -> None:
    """Delete what the release before can't have: tokens and tickets without a user."""
    for name in ("AccessToken", "Ticket"):
        rows = apps.get_model("realtime", name)._base_manager.using(schema_editor.connection.alias)
        rows.filter(user=None).delete()


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("realtime", "0010_outbox"),
    ]

    operations = [
        migrations.AddField(
            model_name="accesstoken",
            name="scopes",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                help_text="What it may do of what its user may, as “publish:room.* read:orders.*”; "
                "the actions are read, publish and presence. Empty: all of it.",
                verbose_name="scopes",
            ),
        ),
        migrations.AlterField(
            model_name="accesstoken",
            name="user",
            field=models.ForeignKey(
                blank=True,
                help_text="Nobody: a service, which may do what its scopes say.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="realtime_tokens",
                to=settings.AUTH_USER_MODEL,
                verbose_name="user",
            ),
        ),
        migrations.AlterField(
            model_name="ticket",
            name="user",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.RunPython(migrations.RunPython.noop, delete_services),
    ]
