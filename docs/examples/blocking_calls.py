import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def blocking_calls_fail():
    with blockbuster_ctx("myapp"):
        yield
