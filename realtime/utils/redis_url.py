"""URLs of Redis: of one server, of a cluster, and of Sentinels that know the server."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

SENTINEL_PORT: Final = 26_379
SCHEMES: Final = "redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://host/name"


class RedisURL(NamedTuple):
    """The parts of a URL."""

    server: str  # as redis-py reads it; its host means nothing where there are Sentinels
    is_cluster: bool = False
    master: str = ""  # the name by which Sentinels know the server
    sentinels: Sequence[tuple[str, int]] = ()
    sentinel_options: Mapping[str, str] = {}

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the parts of a URL; raise ValueError, whose text has nothing of a password.

        Of Sentinels it is `redis+sentinel://[user:password@]host:port,.../name/database?options`:
        the credentials are the server's, the options the Sentinels' own.
        """
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if kind in ("", "cluster"):
            return cls(url.replace("+cluster", "", 1), kind == "cluster")
        user, at, hosts = parts.netloc.rpartition("@")
        master, _, database = parts.path.strip("/").partition("/")
        if kind != "sentinel" or not master:
            raise ValueError(f"The URL of Redis is none of {SCHEMES}.")
        sentinels = [
            (name, int(port or SENTINEL_PORT))
            for name, _, port in (host.partition(":") for host in hosts.split(","))
        ]
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        server = f"{scheme}://{user}{at}named-by-sentinels/{database}"
        return cls(server, False, master, sentinels, options)
