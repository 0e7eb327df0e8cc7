from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0009_publish_function"),
    ]

    operations = [
        migrations.CreateModel(
            name="OutboxEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("process", models.CharField(max_length=40)),
                ("events", models.TextField()),
                ("created", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name": "outbox entry",
                "verbose_name_plural": "outbox entries",
            },
        ),
    ]
