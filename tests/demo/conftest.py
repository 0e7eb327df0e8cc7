"""One demo for the tests that leave it as it is."""

from collections.abc import Iterator

import pytest

from .support import Demo, running_demo


@pytest.fixture(scope="session")
def _no_connection_left() -> None:
    """These tests talk to the demo's own database; the suite's fixture would make another."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo with an empty DATA_DIR and no other variable set."""
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running
