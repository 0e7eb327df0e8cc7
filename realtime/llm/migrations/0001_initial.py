"""Take the model Generation over from the core, which has made its table: nothing to do there."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("realtime", "0004_generation_moves"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Generation",
                    fields=[
                        (
                            "id",
                            models.BigAutoField(
                                auto_created=True,
                                primary_key=True,
                                serialize=False,
                                verbose_name="ID",
                            ),
                        ),
                        ("name", models.CharField(max_length=32, unique=True)),
                        (
                            "topic",
                            models.CharField(max_length=99, unique=True, verbose_name="topic"),
                        ),
                        ("key", models.CharField(max_length=200, null=True)),
                        ("digest", models.CharField(max_length=64)),
                        (
                            "created",
                            models.DateTimeField(
                                default=django.utils.timezone.now, verbose_name="created"
                            ),
                        ),
                        ("beat", models.DateTimeField(verbose_name="at work")),
                        ("heard", models.DateTimeField(verbose_name="listened to")),
                        ("ended", models.DateTimeField(null=True, verbose_name="ended")),
                        (
                            "outcome",
                            models.CharField(blank=True, max_length=20, verbose_name="outcome"),
                        ),
                        (
                            "model",
                            models.CharField(blank=True, max_length=100, verbose_name="model"),
                        ),
                        (
                            "input_tokens",
                            models.PositiveBigIntegerField(null=True, verbose_name="input tokens"),
                        ),
                        (
                            "output_tokens",
                            models.PositiveBigIntegerField(null=True, verbose_name="output tokens"),
                        ),
                        (
                            "user",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.CASCADE,
                                related_name="+",
                                to=settings.AUTH_USER_MODEL,
                                verbose_name="user",
                            ),
                        ),
                    ],
                    options={
                        "verbose_name": "generated answer",
                        "verbose_name_plural": "generated answers",
                        "db_table": "realtime_generation",
                        "indexes": [
                            models.Index(fields=["ended", "beat"], name="realtime_generation_alive")
                        ],
                        "constraints": [
                            models.UniqueConstraint(
                                fields=("user", "key"), name="realtime_generation_key"
                            )
                        ],
                    },
                )
            ]
        )
    ]
