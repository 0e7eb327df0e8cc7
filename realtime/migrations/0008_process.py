from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0007_idempotency_keys"),
    ]

    operations = [
        migrations.CreateModel(
            name="Process",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=40, unique=True)),
                ("host", models.CharField(max_length=255)),
                ("version", models.CharField(max_length=40)),
                ("started", models.DateTimeField()),
                ("beat", models.DateTimeField()),
            ],
            options={
                "verbose_name": "process",
                "verbose_name_plural": "processes",
            },
        ),
    ]
