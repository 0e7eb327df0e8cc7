"""For whom a proxy says that it forwards: the headers of `--proxy-headers`.

Anybody can send them, and proxies append to what they got: an entry is as good as its author. So
they are read from the right, and no further than the first address that is no trusted proxy's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias

from realtime.server.transport import Address

Network: TypeAlias = IPv4Network | IPv6Network
SCHEMES: Final = {b"https": True, b"wss": True, b"http": False, b"ws": False}
MAX_PORT: Final = 65_535
_ADDRESS: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)"
)


@dataclass(frozen=True, slots=True)
class ForwardedHeaders:
    """Names of the headers, in lower case, and the proxies that are trusted.

    Without a proxy that is named, the peer is one, and no other.
    """

    address: bytes
    port: bytes
    proto: bytes
    proxies: tuple[Network, ...] = ()

    def trusts(self, peer: Address) -> bool:
        """Return whether what this peer says counts; one on a Unix socket is this machine's."""
        return not self.proxies or peer is None or self._is_proxy(peer[0])

    def read(
        self, headers: Sequence[tuple[bytes, bytes]], client: Address, secure: bool
    ) -> tuple[Address, bool]:
        """Return the client, and whether it came by TLS, as the proxies say.

        What they don't say, or what is no address, port or scheme, leaves what the connection says.
        """
        for entry in reversed(_entries(headers, self.address)):
            found = parse_address(entry.decode("latin1"))
            if found is None:
                break
            client = found
            if not self._is_proxy(found[0]):
                break
        for port in _entries(headers, self.port)[-1:]:
            if client is not None and not client[1]:
                client = [client[0], _port(port)]
        for scheme in _entries(headers, self.proto)[-1:]:
            secure = SCHEMES.get(scheme.lower(), secure)
        return client, secure

    def _is_proxy(self, host: str) -> bool:
        address = ip_address(host)
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self.proxies)


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list as `10.0.0.0/8,::1`; raise ValueError."""
    return tuple(ip_network(word.strip(), strict=False) for word in text.split(","))


def parse_address(text: str) -> list[Any] | None:
    """Return host and port of an entry, the port 0 where it has none; None for what is no address.

    As `192.0.2.1`, `192.0.2.1:8080`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:8080`.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3] or 0) > MAX_PORT:
        return None
    try:
        return [str(ip_address(match[1] or match[2] or match[4])), int(match[3] or 0)]
    except ValueError:
        return None


def _port(digits: bytes) -> int:
    """Return a port; 0 for what is none."""
    is_port = digits.isdigit() and len(digits) <= 5 and int(digits) <= MAX_PORT
    return int(digits) if is_port else 0


def _entries(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return the list of a header that may come in several lines (RFC 9110, section 5.3)."""
    lines = [value for key, value in headers if key == name]
    return [entry.strip() for entry in b",".join(lines).split(b",")] if lines else []
