"""`realtime.limits.checks`: limits by address where a proxy hides the clients."""

import pytest
from django.test import override_settings

from realtime.limits.checks import check_addresses

LIMIT = {"MAX_CONNECTIONS_PER_ADDRESS": 10, "RATE_OPENS_PER_ADDRESS": "1/s"}


@pytest.mark.parametrize(
    "proxied",
    [
        {"USE_X_FORWARDED_HOST": True},
        {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")},
    ],
)
def test_limits_by_address_behind_a_proxy_are_reported(proxied):
    with override_settings(REALTIME=LIMIT, **proxied):
        [found] = check_addresses()
    assert found.id == "realtime.W016"
    assert "MAX_CONNECTIONS_PER_ADDRESS" in found.msg
    assert "RATE_OPENS_PER_ADDRESS" in found.msg
    assert "--proxy-headers" in found.hint
    with override_settings(REALTIME={}, **proxied):
        assert check_addresses() == []


def test_without_a_proxy_they_are_not():
    with override_settings(REALTIME=LIMIT):
        assert check_addresses() == []
