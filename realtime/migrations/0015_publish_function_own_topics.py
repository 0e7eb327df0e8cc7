"""`realtime_publish` refuses the package's own topics, by which processes are told what to do."""

from django.db import migrations

from realtime.eventlog import publish_function


class Migration(migrations.Migration):
    dependencies = [("realtime", "0014_token_rotation")]

    operations = [
        migrations.RunPython(
            publish_function.create,
            migrations.RunPython.noop,  # it serves the code before as well
            hints={"model_name": "event"},
        )
    ]
