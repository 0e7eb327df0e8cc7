"""`realtime.access.checks`: Django's own checks see the inline middleware."""

import pytest
from django.conf import settings
from django.core import checks
from django.test import override_settings

from realtime.access.checks import show_inline_middleware

from ..test_middleware import NAMES, OURS


def deployment(**changes: object) -> set[str]:
    """The ids of Django's checks for deployment."""
    with override_settings(**changes):
        found = checks.run_checks(tags=["security"], include_deployment_checks=True)
        assert settings.MIDDLEWARE is changes["MIDDLEWARE"]  # put back
    return {message.id for message in found}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"SESSION_COOKIE_SECURE": True, "CSRF_COOKIE_SECURE": True, "SECURE_HSTS_SECONDS": 60},
        {"SECURE_SSL_REDIRECT": True, "X_FRAME_OPTIONS": "SAMEORIGIN"},
        {"SECURE_CONTENT_TYPE_NOSNIFF": False, "SECURE_REFERRER_POLICY": None},
    ],
    ids=str,
)
def test_inline_middleware_is_checked_as_djangos(changes):
    found = deployment(MIDDLEWARE=["realtime.middleware.HealthMiddleware", *OURS], **changes)
    assert found == deployment(MIDDLEWARE=NAMES, **changes)
    assert not found & {"security.W001", "security.W002", "security.W003"}
    assert "security.W001" in deployment(MIDDLEWARE=OURS[1:], **changes)


def test_checks_are_wrapped_once():
    before = set(checks.registry.registry.deployment_checks)
    show_inline_middleware()
    assert checks.registry.registry.deployment_checks == before
