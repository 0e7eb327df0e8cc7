"""What carries announcements in a job with faults: it can be killed and started again."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import psycopg

from .bus_servers import NatsServer
from .databases import ON_POSTGRESQL, postgresql_uri
from .servers import Valkey


class Broker(Protocol):
    """A server between the workers."""

    expected: ClassVar[list[str]]
    """What workers may log as errors when it is killed."""

    @property
    def env(self) -> dict[str, str]: ...

    def kill(self) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class LayerBroker(Valkey):
    """Valkey behind the channel layer."""

    expected: ClassVar = ["redis.exceptions.ConnectionError"]

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS_URL": self.url}


class PostgresBroker:
    """The database itself: killed are the connections that listen."""

    expected: ClassVar[list[str]] = []
    env: ClassVar = {"BUS": "postgres"}

    def __init__(self) -> None:
        assert ON_POSTGRESQL, "BUS=postgres needs TEST_DATABASE=postgresql"

    def kill(self) -> None:
        with psycopg.connect(postgresql_uri()) as connection:
            killed = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'realtime bus'"
            ).fetchall()
        assert killed, "nothing listens"

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


class NatsBroker(NatsServer):
    """NATS by itself."""

    expected: ClassVar[list[str]] = []

    @property
    def env(self) -> dict[str, str]:
        return {"BUS": "nats", "NATS_URL": self.url}


class RedisBroker(Valkey):
    """Valkey without a channel layer."""

    expected: ClassVar[list[str]] = []

    @property
    def env(self) -> dict[str, str]:
        return {"BUS": "redis", "REDIS_URL": self.url}


BROKERS: dict[str, Callable[[], Any]] = {
    "channels": LayerBroker,
    "nats": NatsBroker,
    "postgres": PostgresBroker,
    "redis": RedisBroker,
}
