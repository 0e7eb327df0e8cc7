"""The table of generations goes over from the core to `realtime.llm` with all that hangs on it."""

import os
import subprocess
import sys

import pytest

from ..support.servers import ROOT

UPGRADE = """
import django
django.setup()
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

def migrate(*target):
    call_command("migrate", *target, verbosity=0)

def types():
    return list(ContentType.objects.filter(model="generation").values_list("app_label", flat=True))

migrate()
migrate("realtime_llm", "zero")
migrate("realtime", "0003")
assert types() == ["realtime"], types()
user = User.objects.create_user("alice")
team = Group.objects.create(name="team")
user.groups.add(team)
permission = Permission.objects.get(codename="view_generation")
team.permissions.add(permission)
now = timezone.now()
with connection.cursor() as cursor:
    cursor.execute(
        "INSERT INTO realtime_generation (user_id, name, topic, digest, created, beat, heard,"
        " outcome, model) VALUES (%s, 'n', 't', 'd', %s, %s, %s, '', '')",
        [user.pk, now, now, now],
    )
if BOTH:  # as after a first start of the new code, before it was migrated
    stray = ContentType.objects.create(app_label="realtime_llm", model="generation")
    Permission.objects.create(content_type=stray, codename="view_generation", name="stray")
for _ in range(2):
    migrate()
    from realtime.llm.models import Generation
    assert types() == ["realtime_llm"], types()
    assert Generation.objects.get().user == user
    assert Permission.objects.get(codename="view_generation").pk == permission.pk
    assert User.objects.get().has_perm("realtime_llm.view_generation")
    migrate("realtime_llm", "zero")
    migrate("realtime", "0003")
    assert types() == ["realtime"], types()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM realtime_generation")
        assert cursor.fetchone() == (1,)
print("as expected")
"""


@pytest.mark.parametrize("both", [False, True])
def test_rows_and_permissions_survive_the_upgrade_forth_and_back(tmp_path, both):
    env = {
        **os.environ,
        "DATA_DIR": str(tmp_path),
        "DATABASE_URL": "",
        "SECRET_KEY": "test",
        "DJANGO_SETTINGS_MODULE": "project.settings",
    }
    program = [sys.executable, "-c", f"BOTH = {both}\n{UPGRADE}"]
    done = subprocess.run(program, cwd=ROOT, env=env, capture_output=True, text=True, timeout=50)
    assert done.stdout.endswith("as expected\n"), done.stderr[-2000:]
