import pytest

from realtime.testing import no_blocking


@pytest.fixture
async def free_loop():
    with no_blocking(seconds=0.1):
        yield
