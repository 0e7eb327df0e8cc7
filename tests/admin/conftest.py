"""Who uses the admin, and whom it is about."""

from ..support.admin import alice, boss  # noqa: F401 - fixtures
