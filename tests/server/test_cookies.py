"""Cookies in quotes: read as Python reads them, in linear time."""

from http import cookies

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.server.cookies import install, is_quadratic, unquote

from ..test_patterns import assert_linear

PYTHONS_OWN = cookies._unquote


@given(st.text(alphabet='"\\01237a;\x00é', max_size=30))
def test_values_are_read_as_python_reads_them(text: str) -> None:
    assert unquote(text) == PYTHONS_OWN(text)
    assert unquote(f'"{text}"') == PYTHONS_OWN(f'"{text}"')


def test_reading_grows_linearly() -> None:
    assert_linear(lambda text: unquote(f'"{text}"'))


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ((3, 11, 9), True),
        ((3, 11, 10), False),
        ((3, 12, 0), True),
        ((3, 12, 5), True),
        ((3, 12, 6), False),
        ((3, 13, 0), False),
    ],
)
def test_old_pythons_are_known(version: tuple[int, ...], old: bool) -> None:
    assert is_quadratic(version) == old


@pytest.mark.parametrize("version", [(3, 12, 5), (3, 12, 6)])
def test_an_old_python_reads_cookies_with_ours(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]
) -> None:
    monkeypatch.setattr(cookies, "_unquote", PYTHONS_OWN)
    monkeypatch.setattr("realtime.server.cookies.sys.version_info", version)
    install()
    assert (cookies._unquote is unquote) == (version < (3, 12, 6))
