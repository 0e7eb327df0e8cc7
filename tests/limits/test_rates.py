"""`realtime.limits.rates`: the hook for staff and plans."""

import pytest
from django.test import override_settings

from realtime.access.identity import ANONYMOUS, Identity
from realtime.conf import settings
from realtime.conf.rate import parse_rate
from realtime.limits.rates import rate_for


async def test_without_a_hook_the_setting_counts():
    assert await rate_for(ANONYMOUS, "RATE_MESSAGES") == settings.RATE_MESSAGES


async def test_the_hook_says_for_whom_another_rate_holds():
    asked = []

    async def rate(identity: Identity, action: str) -> str | None:
        asked.append((identity, action))
        return {"RATE_MESSAGES": "7/m", "RATE_PUBLISHES": "unlimited"}.get(action)

    with override_settings(REALTIME={"RATE_FOR": rate}):
        assert await rate_for(ANONYMOUS, "RATE_MESSAGES") == parse_rate("7/m")
        assert await rate_for(ANONYMOUS, "RATE_PUBLISHES") is None
        assert await rate_for(ANONYMOUS, "RATE_SUBSCRIBES") == settings.RATE_SUBSCRIBES
    assert asked[0] == (ANONYMOUS, "RATE_MESSAGES")


@pytest.mark.parametrize("said", ["often", 7, ValueError("broken")])
async def test_where_it_fails_the_setting_counts_and_the_log_says_so_once(said, caplog):
    async def rate(identity: Identity, action: str) -> str | None:
        if isinstance(said, Exception):
            raise said
        return said

    with override_settings(REALTIME={"RATE_FOR": rate}):
        for _ in range(3):
            assert await rate_for(ANONYMOUS, "RATE_MESSAGES") == settings.RATE_MESSAGES
    [record] = caplog.records
    assert "RATE_FOR failed" in record.getMessage()
