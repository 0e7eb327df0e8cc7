"""On PostgreSQL events are published by SQL too: `SELECT realtime_publish('room.a', '{"n": 1}')`."""

from django.db import migrations

from realtime.eventlog import publish_function


class Migration(migrations.Migration):
    dependencies = [("realtime", "0008_process")]

    operations = [
        migrations.RunPython(
            publish_function.create, publish_function.drop, hints={"model_name": "event"}
        )
    ]
