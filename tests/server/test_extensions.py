"""What a scope offers, and what is found where it offers nothing."""

from typing import Any

import pytest

from realtime.server.extensions import disconnect_event, fastlane, file_part, server_state


@pytest.mark.parametrize(
    "scope", [{}, {"extensions": None}, {"extensions": {}}, {"extensions": {"other": {}}}]
)
def test_other_servers_offer_nothing(scope: dict[str, Any]) -> None:
    assert disconnect_event(scope) is None
    assert fastlane(scope) is None
    assert file_part(scope) is None
    assert server_state(scope) == {}


def test_each_extension_under_its_key() -> None:
    event, lane, part, state = object(), object(), object(), {"draining": True}
    scope = {
        "extensions": {
            "realtime.disconnect": {"event": event},
            "realtime.lane": {"lane": lane},
            "realtime.sendfile": {"part": part},
            "realtime.server": state,
        }
    }
    assert disconnect_event(scope) is event
    assert fastlane(scope) is lane
    assert file_part(scope) is part
    assert server_state(scope) is state
