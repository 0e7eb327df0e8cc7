"""`realtime.server.forwarded`: an entry is as good as who wrote it."""

import subprocess
import sys
from ipaddress import ip_address

import pytest

from realtime.server.forwarded import ForwardedHeaders, Network, networks, parse_address

PEER = ["10.0.0.9", 5]
OURS = networks("10.0.0.0/8, 192.0.2.1,2001:db8::/32")


def read(
    *lines: str, proxies: tuple[Network, ...] = (), secure: bool = False
) -> tuple[object, bool]:
    names = (b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto")
    headers = [tuple(line.encode("latin1").split(b": ", 1)) for line in lines]
    return ForwardedHeaders(*names, proxies).read(headers, PEER, secure)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ["192.0.2.1", 0]),
        ("192.0.2.1:1024", ["192.0.2.1", 1024]),
        ("192.0.2.1:65535", ["192.0.2.1", 65535]),
        ("2001:DB8::1", ["2001:db8::1", 0]),
        ("[2001:db8::1]", ["2001:db8::1", 0]),
        ("[2001:db8::1]:8080", ["2001:db8::1", 8080]),
        ("::ffff:192.0.2.1", [str(ip_address("::ffff:192.0.2.1")), 0]),
        *(
            (text, None)
            for text in (
                *("", "unknown", "_hidden", "localhost", "192.0.2", "192.0.2.256", "0192.0.2.1"),
                *("192.0.2.1:", "192.0.2.1:x", "192.0.2.1:65536", "192.0.2.1:-1", "192.0.2.1:1:2"),
                *("[2001:db8::1", "2001:db8::1]", "[2001:db8::1]8080", "[]:1", ":1", "::1::"),
                *("192.0.2.1 192.0.2.2", "<script>", "1" * 5000, "é", "١٢.0.2.1"),
            )
        ),
    ],
)
def test_address(text, found):
    assert parse_address(text) == found


@pytest.mark.parametrize(
    ("entries", "client"),
    [
        ("198.51.100.7", ["198.51.100.7", 0]),
        ("6.6.6.6, 198.51.100.7", ["198.51.100.7", 0]),
        ("6.6.6.6,unknown", PEER),
        ("198.51.100.7:1024", ["198.51.100.7", 1024]),
        ("", PEER),
        (",", PEER),
    ],
)
def test_without_named_proxies_the_last_entry_is_the_client(entries, client):
    assert read(f"x-forwarded-for: {entries}") == (client, False)


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["198.51.100.7, 10.0.0.1, 192.0.2.1"], "198.51.100.7"),
        (["6.6.6.6, 198.51.100.7, 2001:db8::5"], "198.51.100.7"),
        (["6.6.6.6", "198.51.100.7", "10.0.0.1"], "198.51.100.7"),  # lines of one list
        (["6.6.6.6, unknown, 10.0.0.1"], "10.0.0.1"),  # no further than what can be read
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (["198.51.100.7, ::ffff:10.0.0.1"], "198.51.100.7"),
        (["198.51.100.7"], "198.51.100.7"),
    ],
)
def test_client_is_the_last_that_is_no_trusted_proxy(lines, client):
    headers = [f"x-forwarded-for: {line}" for line in lines]
    assert read(*headers, proxies=OURS)[0] == [client, 0]


@pytest.mark.parametrize(
    ("value", "before", "secure"),
    [
        ("https", False, True),
        ("HTTPS", False, True),
        ("wss", False, True),
        ("http", True, False),
        ("https, http", False, False),
        ("http, https", False, True),
        ("ftp", True, True),
        ("", False, False),
    ],
)
def test_scheme_needs_no_address_and_is_the_last_ones_word(value, before, secure):
    assert read(f"x-forwarded-proto: {value}", secure=before) == (PEER, secure)


@pytest.mark.parametrize(
    ("port", "found"), [("7", 7), ("65536", 0), ("x", 0), ("-1", 0), ("9" * 4000, 0), ("", 0)]
)
def test_port_of_its_own_header(port, found):
    lines = ("x-forwarded-for: 198.51.100.7", f"x-forwarded-port: {port}")
    assert read(*lines)[0] == ["198.51.100.7", found]


def test_port_of_the_entry_comes_first():
    lines = ("x-forwarded-for: 198.51.100.7:9", "x-forwarded-port: 7")
    assert read(*lines)[0] == ["198.51.100.7", 9]


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        (["10.1.2.3", 1], True),
        (["::ffff:10.1.2.3", 1], True),
        (["11.0.0.1", 1], False),
        (["2001:db8::9", 1], True),
        (["::1", 1], False),
        (None, True),
    ],
)
def test_peer(peer, is_trusted):
    assert ForwardedHeaders(b"a", b"b", b"c", OURS).trusts(peer) is is_trusted
    assert ForwardedHeaders(b"a", b"b", b"c").trusts(peer) is True


def test_network_that_is_none_is_refused_by_the_command_line():
    command = [sys.executable, "-m", "realtime.server", "--trusted-proxies", "10.0.0/8", "a:b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--trusted-proxies" in done.stderr
