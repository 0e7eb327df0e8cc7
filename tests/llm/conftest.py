"""Fixtures of the tests that ask an upstream of their own."""

import pytest


@pytest.fixture(scope="session")
def template(_site_template: dict[str, str]) -> dict[str, str]:
    """The environment of a migrated site, to be copied."""
    return _site_template
