from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("realtime", "0011_token_scopes"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="process",
            options={
                "permissions": [
                    ("view_live", "Can see the live page: processes, topics, connections"),
                    ("view_address", "Can see the addresses of live connections"),
                    ("disconnect_user", "Can end the live connections of a user"),
                ],
                "verbose_name": "process",
                "verbose_name_plural": "processes",
            },
        ),
        migrations.AddField(
            model_name="process",
            name="bus_failure",
            field=models.CharField(db_default="", max_length=100),
        ),
        migrations.AddField(
            model_name="process",
            name="connections",
            field=models.IntegerField(null=True),
        ),
        migrations.AddField(
            model_name="process",
            name="loop_lag",
            field=models.FloatField(null=True),
        ),
    ]
