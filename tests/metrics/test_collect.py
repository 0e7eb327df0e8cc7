"""The numbers of this process, and of others that share its folder."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from realtime.metrics import cells, collect
from realtime.metrics.collect import BUILD, WORKERS

from .support import Process


async def test_without_a_folder_a_process_tells_its_own(settings):
    found = await collect.collect()
    assert found["realtime_workers"] == 1
    assert BUILD.value("0.1.0") == 1
    assert WORKERS.value() == 1


def test_with_a_folder_it_tells_all(settings: Any, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(collect, "_files", {})
    settings.REALTIME = {"METRICS_DIR": str(tmp_path)}
    other = Process(tmp_path)

    async def told() -> dict[str, int]:
        monkeypatch.setattr(collect, "BEAT_SECONDS", 0.01)
        collect.begin(asyncio.get_running_loop())
        await asyncio.sleep(0.1)
        return await collect.collect()

    try:
        # Before the loop runs, as a server does.
        collect.files()
        found = asyncio.run(told())
        assert (found["realtime_workers"], found["a_total"]) == (1, 1)
        assert len(list(tmp_path.glob("*.counters"))) == 2
    finally:
        other.kill()
        cells.cells.forget()


async def test_a_folder_that_can_not_be_written_leaves_its_own(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "_files", {})
    (tmp_path / "file").write_text("")
    settings.REALTIME = {"METRICS_DIR": str(tmp_path / "file")}
    found = await collect.collect()
    assert found["realtime_workers"] == 1
    assert (await collect.collect())["realtime_workers"] == 1


async def test_what_can_not_be_read_is_raised(settings, tmp_path, monkeypatch):
    class Unreadable:
        def read(self) -> dict[str, int]:
            raise PermissionError(13, "Permission denied")

    settings.REALTIME = {"METRICS_DIR": str(tmp_path)}
    monkeypatch.setattr(collect, "_files", {str(tmp_path): Unreadable()})
    with pytest.raises(PermissionError):
        await collect.collect()
