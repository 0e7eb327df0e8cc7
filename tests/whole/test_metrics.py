"""What two real workers count, one of which is killed, and what they write to the log."""

import json
import os
import re
import signal
import stat
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families as parse
from websockets.sync.client import connect

from ..support.clients import bearer
from ..support.servers import TOKENS, SiteServer, serving, wait_until

LINE = re.compile(r"Metrics on (http://127\.0\.0\.1:\d+/metrics)")


def told(text: str) -> dict[str, float]:
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def metrics(server: SiteServer) -> dict[str, float]:
    [url] = [found[1] for line in server.log if (found := LINE.search(line))]
    return told(httpx.get(url, timeout=20).text)


def publish(server: SiteServer, count: int) -> None:
    with httpx.Client(base_url=server.url, headers=bearer(TOKENS["alice"]), timeout=20) as client:
        for n in range(count):
            assert client.post("/topics/room.a/events", json=n).status_code == 201


def read(server: SiteServer, count: int) -> None:
    headers = bearer(TOKENS["alice"])
    url = f"{server.ws_url}/ws/topics/room.a?after=0&token=hidden"
    with connect(url, additional_headers=headers) as socket:
        for _ in range(count):
            assert json.loads(socket.recv(20))["type"] == "event"


def test_counts_of_all_workers_outlive_a_kill_and_a_restart(site):
    with serving({**site, "LOG_FORMAT": "json"}, "--workers", "2", "--metrics-port", "0") as server:
        publish(server, 10)
        for _ in range(3):
            read(server, 10)
        closed = "realtime_connections_closed_total websocket 1000"
        wait_until(lambda: metrics(server).get(closed) == 3)
        before = metrics(server)
        assert before["realtime_events_published_total http"] == 10
        assert before["realtime_publish_seconds_count"] == 10
        assert before["realtime_connections_opened_total websocket"] == 3
        delivered = [before[f"realtime_deliveries_total {path}"] for path in ("lane", "log")]
        assert sum([*delivered, before["realtime_deliveries_total awaited"]]) == 30
        assert (before["realtime_workers"], before["realtime_worker_restarts_total"]) == (2, 0)
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        by_a_worker = httpx.get(f"{server.url}/metrics", headers=bearer(TOKENS["admin"])).text
        assert told(by_a_worker)["realtime_events_published_total http"] == 10

        os.kill(server.worker_pids()[0], signal.SIGKILL)

        def is_back() -> bool:
            now = metrics(server)
            assert all(now[name] >= before[name] for name in before if "_total" in name)
            assert now["realtime_events_published_total http"] == 10
            return now["realtime_workers"] == 2 and now["realtime_worker_restarts_total"] == 1

        wait_until(is_back)
        publish(server, 5)
        old = set(server.worker_pids())
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not old & set(server.worker_pids()), 40)
        after = metrics(server)
        assert after["realtime_events_published_total http"] == 15
        assert after[closed] == 3
        folder = Path(site["DATA_DIR"]) / "metrics"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        lines = [json.loads(line) for line in server.log if line.startswith("{")]
        ends = [line for line in lines if line["logger"] == "realtime.connections"]
    fields = ("transport", "path", "events", "code")
    assert [tuple(line[name] for name in fields) for line in ends] == [
        ("websocket", "/ws/topics/room.a", 10, 1000)
    ] * 3
    assert {line["user"] for line in ends} != {None}
    assert all(line["bytes"] > 300 for line in ends)
    assert not any("hidden" in line for line in server.log)
