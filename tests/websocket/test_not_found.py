"""A WebSocket's address that nobody serves."""

import logging
from typing import Any

import pytest
from channels.routing import URLRouter

from realtime.routing import not_found_route, websocket_urlpatterns
from realtime.testing import ConnectionRefused, websocket
from realtime.websocket.not_found import not_found


async def test_an_unknown_address_is_404_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "realtime.consumers")
    routes = URLRouter([*websocket_urlpatterns, not_found_route])
    with pytest.raises(ConnectionRefused) as refused:
        async with websocket(routes, "/no/such%0asocket?token=secret"):
            pass
    assert refused.value.status == 404
    assert refused.value.detail == "There is no WebSocket at this address."
    (record,) = [each for each in caplog.records if each.name == "realtime.consumers"]
    assert record.levelno == logging.INFO
    assert record.getMessage() == r"There is no WebSocket at '/no/such\nsocket'"


async def test_a_server_without_denial_responses_answers_403() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await not_found({"type": "websocket", "path": "/x"}, receive, send)
    assert sent == [{"type": "websocket.close"}]
