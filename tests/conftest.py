"""Fixtures: real servers, users, tokens."""

import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgiref.sync import SyncToAsync
from blockbuster import BlockBuster
from django.db import connections
from hypothesis import settings as hypothesis_settings

from realtime.streaming.source_context import _threads
from realtime.utils.threads import DATABASE

from .support.databases import new_database_url
from .support.servers import SiteServer, Valkey, prepare_site, serving

# A busy machine may take any time for an example. Each run draws others (where the variable CI is
# set, the same): many runs look at many, `--hypothesis-profile=thorough` in one.
for _profile, _examples in ("patient", 25), ("thorough", 500):
    hypothesis_settings.register_profile(
        _profile, hypothesis_settings.default, deadline=None, max_examples=_examples
    )
hypothesis_settings.load_profile("patient")

# Of httpx, for what a test gives no time-out: 5 s are not enough where a machine stands still.
for _name in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _name, 20.0)

# Hundreds of processes are started, and each would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What asyncio's debug mode says of a slow step is about the machine; tests count what is logged.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing"))

PROCESSES = 3  # for two cores: much of a test is waiting
# One after the other: they measure, or need much of the machine. They begin first.
HEAVY = (
    "/test_bounds.py",
    "/test_leaks.py",
    "/test_main_job.py",
    "/test_benchmarks.py::test_the_command",
)
# What takes longest of the rest, so that none of it is left to the end.
LONG = (
    *("/chaos/", "/parity/", "/demo/test_page.py", "/test_generation.py", "/demo/test_client.py"),
    *("/test_supervisor.py", "/bus/test_redis.py", "/demo/test_demo.py", "/test_benchmarks.py"),
    *("/test_files.py", "/test_answer_stream.py", "/test_peers.py", "/whole/test_presence.py"),
    *("/test_ndjson.py", "/test_connections.py", "/eventlog/test_base.py", "/demo/test_live.py"),
    *("/test_websocket_connection.py", "/test_leases.py", "/test_shutdown.py", "/test_readme.py"),
    *("/test_churn.py", "/demo/test_answer.py", "/test_exchange.py", "/server/test_limits.py"),
    *("/redis/test_log.py", "/websocket/test_consumers.py", "/test_docs.py", "/test_announce.py"),
    *("/delivery/test_hub.py", "/test_packaging.py", "/http/test_health.py", "/test_nginx.py"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in several processes; a part of it in as many as `-n` says."""
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    option.loadscopereorder = False  # ours is better
    if config.args_source is config.ArgsSource.TESTPATHS and option.numprocesses is None:
        option.numprocesses = 0 if option.usepdb else PROCESSES


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process a file at a time, or a contestant of parity: its tests share servers."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if is_heavy(nodeid):
                return "heavy"
            if "/parity/" in nodeid:
                return "parity, fastapi" if "fastapi" in nodeid else "parity"
            return super()._split_scope(nodeid)

    return ByFile(config, log)


def is_heavy(nodeid: str) -> bool:
    return any(name in nodeid for name in HEAVY)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: each full collection of garbage would go through it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After pytest-randomly: the longest come first."""
    items.sort(key=lambda item: rank(item.nodeid))


def rank(nodeid: str) -> int:
    if is_heavy(nodeid):
        return -1
    return next((index for index, name in enumerate(LONG) if name in nodeid), len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _no_connection_left(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The shared threads must let go of the test database before it is dropped."""
    yield
    DATABASE.close()
    # asgiref's thread for those who have none of their own, such as a test's async client.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()
    for worker in _threads()._workers:
        worker.executor.submit(connections.close_all).result()


@pytest.fixture(autouse=True)
def _blocking_calls_fail(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call in the event loop is an error, wherever our own code makes it."""
    detector = BlockBuster("realtime")
    detector.activate()
    yield
    detector.deactivate()


@pytest.fixture(scope="session")
def _site_template() -> dict[str, str]:
    return prepare_site(new_database_url(), tempfile.mkdtemp(prefix="realtime-site-"))


@pytest.fixture
def site(_site_template: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh site with its own database: users alice, bob, admin (staff)."""
    url = new_database_url(_site_template["DATABASE_URL"])
    return {"DATABASE_URL": url, "DATA_DIR": str(tmp_path)}


@pytest.fixture
def server(site: dict[str, str]) -> Iterator[SiteServer]:
    """The site, served by one worker."""
    with serving(site) as running:
        yield running


@pytest.fixture
def valkey(monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A Valkey of the test's own, which it may kill."""
    # Redis' client loses a cancellation now and then, and the test would wait for the next one.
    monkeypatch.setattr("realtime.utils.aio.AGAIN_SECONDS", 2.0)
    running = Valkey()
    yield running
    running.stop()
    # redis-py and channels_redis drop connections unclosed, as where the server is killed while
    # they connect: collected here, and not in the middle of another test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def one_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broadcast lets the loop run at its end alone, however slow the machine is."""
    monkeypatch.setattr("realtime.delivery.fanout.SLICE_SECONDS", 60.0)
