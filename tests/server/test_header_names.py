"""Names that come again are not looked at twice, and cannot fill the memory."""

import sys
from collections.abc import Iterator

import pytest

from realtime.server import header_names
from realtime.server.header_names import MAX_KNOWN, MAX_KNOWN_BYTES, known, lower


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    before = dict(known)
    known.clear()
    yield
    known.clear()
    known.update(before)


def test_a_name_is_a_token() -> None:
    assert lower(b"X-Two!") == b"x-two!"
    assert known == {b"X-Two!": b"x-two!"}
    for wrong in (b"", b"a b", b"a:", b"\xe9", b"a\n", b"(a)"):
        assert lower(wrong) == b""
    assert len(known) == 1


def test_what_clients_send_does_not_fill_the_memory() -> None:
    for number in range(2 * MAX_KNOWN):
        assert lower(b"X" * 60_000 + b"%d" % number) == b"x" * 60_000 + b"%d" % number
    assert not known
    for number in range(2 * MAX_KNOWN):
        assert lower(b"N%0*d" % (MAX_KNOWN_BYTES - 1, number)).startswith(b"n0")
    assert len(known) == MAX_KNOWN
    assert sum(map(sys.getsizeof, (*known, *known.values()))) < 250_000
    assert header_names.lower(b"One-More") == b"one-more"
