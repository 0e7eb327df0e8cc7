"""What the site keeps on the disk: where, and that it is for its owner alone."""

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from project.sqlite import OwnerOnlyConnection

from ..support.servers import ROOT, environment

STORE = (
    "import django; django.setup(); from django.db import connection\n"
    "connection.cursor().execute('CREATE TABLE a (b)')\n"
    "from django.conf import settings\n"
    "import os; name = settings.DATABASES['default']['NAME']\n"
    "for path in (name, name + '-wal', name + '-shm'): print(oct(os.stat(path).st_mode)[-3:])"
)
TEMPORARY = (
    "import tempfile; tempfile._candidate_tempdir_list = list  # none can be written to\n"
    "import django; django.setup()\n"
    "print(tempfile.mkdtemp())"
)

OTHER_PROCESS = (
    "import sqlite3, sys\n"
    "sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')"
)


def run(env: dict[str, str], script: str) -> list[str]:
    env = environment({"DJANGO_SETTINGS_MODULE": "project.settings", **env})
    command = [sys.executable, "-c", f"import os; os.umask(0o022)\n{script}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("names", [True, False])
def test_database_and_its_folder_are_for_their_owner(tmp_path: Path, names: bool) -> None:
    folder = tmp_path / "data"
    if names:
        folder.mkdir(0o755)  # the site's own choice stays
        env = {"DATABASE_URL": f"sqlite:///{folder}/other.sqlite3"}
    else:
        env = {"DATA_DIR": str(folder)}
    assert run(env, STORE) == ["600"] * 3
    assert stat.S_IMODE(folder.stat().st_mode) == (0o755 if names else 0o700)


def test_what_is_temporary_is_there_where_it_can_be_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    env = {"DATA_DIR": str(folder), "DATABASE_URL": "sqlite://:memory:"}
    [made] = run(env, TEMPORARY)
    assert Path(made).parent == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_further_connection_leaves_the_locks_of_the_others_alone(tmp_path: Path) -> None:
    """A file that is closed would take them along, and another process could write in between."""
    path = tmp_path / "db.sqlite3"
    other = [sys.executable, "-c", OTHER_PROCESS, str(path)]
    with closing(sqlite3.connect(path, isolation_level=None, factory=OwnerOnlyConnection)) as one:
        one.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path, factory=OwnerOnlyConnection)):
            done = subprocess.run(other, capture_output=True, text=True, timeout=60)
        assert "database is locked" in done.stderr
        one.execute("COMMIT")
        assert subprocess.run(other, timeout=60).returncode == 0
