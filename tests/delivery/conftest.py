"""What each test of delivery begins with."""

import pytest

from realtime.delivery import announce


@pytest.fixture(autouse=True)
def _a_layer_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A breaker that one test opens is not open for the next."""
    monkeypatch.setattr(announce, "_breaker", announce.CircuitBreaker())
