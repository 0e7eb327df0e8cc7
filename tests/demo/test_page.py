"""The page in a real browser: both transports, a killed server, nothing lost, nothing doubled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support.attempts import three_tries
from .support import Demo, running_demo

pytest.importorskip("playwright", reason="needs pip install playwright")
from playwright.sync_api import expect

PATIENCE_MS = 15_000
PANES = ("socket", "stream")
SAME = "Both panes are at the same event."
MOST_STREAMS = 6  # connections that a browser makes to a site over HTTP/1.1, for all its tabs
# A browser without a window hides no tab by itself.
SHOW = """(isHidden) => {
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def texts(page: Any, pane: str) -> list[str]:
    """The messages that a pane shows, in order."""
    found: list[str] = page.locator(f'[data-pane="{pane}"] [data-log] li p').all_inner_texts()
    return found


def shows(page: Any, *messages: str) -> None:
    """Wait until both panes show exactly these messages."""
    for pane in PANES:
        items = page.locator(f'[data-pane="{pane}"] [data-log] li p')
        expect(items).to_have_text(list(messages), timeout=PATIENCE_MS)


def says_of_both(page: Any, text: str) -> None:
    """Wait until the page says this of its two panes."""
    expect(page.locator("[data-step]")).to_have_text(text, timeout=PATIENCE_MS)


def is_live(page: Any) -> None:
    for pane in PANES:
        state = page.locator(f'[data-pane="{pane}"] .state')
        expect(state).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)


def say(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def warnings(page: Any) -> int:
    return int(page.locator("[data-warning]:visible").count())


def test_both_panes_of_both_tabs_show_what_is_said(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    alice = open_page("alice", demo.url, "/?room=tabs")
    say(alice, "first")
    shows(alice, "first")
    bob = open_page("bob", demo.url, "/?room=tabs")
    shows(bob, "first")  # the history
    say(bob, "<b>second</b> & 東京")
    for page in (alice, bob):
        shows(page, "first", "<b>second</b> & 東京")
        assert warnings(page) == 0
        says_of_both(page, SAME)
    expect(alice.locator("[data-rtt]")).to_contain_text(" ms")
    positions = alice.locator("[data-position]").all_inner_texts()
    assert positions[0] == positions[1] != "0"


def test_the_room_shows_who_the_server_says_it_was(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    alice = open_page("alice", demo.url, "/?room=sender")
    say(alice, "mine")
    demo.manage("publish", "room.sender", json.dumps({"user": "alice", "text": "forged"}))
    shows(alice, "mine", "forged")
    for pane in PANES:
        items = alice.locator(f'[data-pane="{pane}"] [data-log] li')
        expect(items.locator("strong")).to_have_text(["alice", "alice"])
        expect(items).to_have_class(["own", ""])
        expect(items.first.get_by_label("The server says so.")).to_be_visible()
        expect(items.last.get_by_label("The server says so.")).to_have_count(0)


def test_typing_is_seen_and_passes(demo: Demo, open_page: Callable[..., Any]) -> None:
    alice = open_page("alice", demo.url, "/?room=typing")
    bob = open_page("bob", demo.url, "/?room=typing")
    is_live(alice)
    is_live(bob)
    typing = alice.locator("[data-typing]")

    def is_seen() -> None:  # for four seconds, and a page that stands still so long shows nothing
        bob.get_by_label("Message", exact=True).press_sequentially("hel")
        expect(typing).to_have_text(["bob is typing…"] * 2, timeout=5_000)

    three_tries(is_seen)
    expect(typing).to_have_text([""] * 2, timeout=PATIENCE_MS)
    assert warnings(alice) == 0
    assert texts(alice, "socket") == []


def test_both_panes_say_who_is_here(demo: Demo, open_page: Callable[..., Any]) -> None:
    sockets: list[Any] = []

    def pass_on(socket: Any) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    alice = open_page("alice", demo.url, "/login/")
    alice.route_web_socket("**/ws/topics/*", pass_on)
    alice.goto(f"{demo.url}/?room=here")
    here = alice.locator("[data-here]")
    expect(here).to_have_text(["Here: alice (you)"] * 2)
    open_page("alice", demo.url, "/?room=here")  # a second tab, the same person
    bob = open_page("bob", demo.url, "/?room=here")
    expect(here).to_have_text(["Here: alice (you), bob"] * 2)
    # As the server tells after the grace, which is longer than a test.
    left = {"id": int(bob.locator("meta[name=user-id]").get_attribute("content"))}
    sockets[0].send(
        json.dumps({"type": "presence", "joined": [], "left": [left], "connections": 4})
    )
    expect(here).to_have_text(["Here: alice (you)", "Here: alice (you), bob"])
    sockets[0].send(json.dumps({"type": "presence", "connections": 120}))  # a crowd
    expect(here.first).to_have_text("Here: 120 connections")
    alice.locator('[data-pane="stream"] [data-cut]').click()
    expect(here.last).to_have_text("")


def test_what_is_missed_while_cut_arrives_once(demo: Demo, open_page: Callable[..., Any]) -> None:
    alice = open_page("alice", demo.url, "/?room=cut")
    bob = open_page("bob", demo.url, "/?room=cut")
    say(alice, "one")
    shows(bob, "one")
    for pane in PANES:
        alice.locator(f'[data-pane="{pane}"] [data-cut]').click()
        state = alice.locator(f'[data-pane="{pane}"] .state')
        expect(state).to_have_attribute("data-state", "idle")
    say(bob, "two")
    shows(bob, "one", "two")
    say(alice, "three")
    outbox = alice.locator("[data-outbox] li")
    expect(outbox).to_have_count(1)
    expect(outbox).to_contain_text("waits for the connection")
    assert texts(alice, "socket") == texts(alice, "stream") == ["one"]
    for pane in PANES:
        alice.locator(f'[data-pane="{pane}"] [data-reconnect]').click()
    for page in (alice, bob):
        shows(page, "one", "two", "three")
        assert warnings(page) == 0
    expect(outbox).to_have_count(0)


def test_events_of_other_types_leave_both_panes_at_the_same_event(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    demo.manage("publish", "room.types", '{"text": "first"}')
    demo.manage("publish", "room.types", '"a"', "--type", "other")
    page = open_page("alice", demo.url, "/?room=types")
    shows(page, "first")
    says_of_both(page, SAME)
    for shown in ("[data-position]", "[data-count]"):
        one, other = page.locator(shown).all_inner_texts()
        assert one == other


def test_tabs_that_are_hidden_leave_the_browsers_connections_to_those_that_are_seen(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    tabs = []
    for _ in range(MOST_STREAMS + 1):
        for tab in tabs[-1:]:
            tab.evaluate(SHOW, True)
        tabs.append(open_page("alice", demo.url, "/?room=many"))
        is_live(tabs[-1])
    first, last = tabs[0], tabs[-1]
    say(last, "unseen")
    shows(last, "unseen")
    assert texts(first, "stream") == []
    last.evaluate(SHOW, True)
    first.evaluate(SHOW, False)
    is_live(first)
    shows(first, "unseen")
    says_of_both(first, SAME)
    first.locator('[data-pane="stream"] [data-cut]').click()
    first.evaluate(SHOW, True)
    first.evaluate(SHOW, False)
    says_of_both(first, "Not live: Server-sent events (cut).")  # it is not for the page to undo


def test_no_more_messages_wait_than_is_said(demo: Demo, open_page: Callable[..., Any]) -> None:
    page = open_page("alice", demo.url, "/?room=full")
    page.locator('[data-pane="socket"] [data-cut]').click()
    for number in range(51):
        say(page, f"message {number}")
    expect(page.locator("[data-outbox] li")).to_have_count(50)
    expect(page.locator("[data-refused]")).to_contain_text("Not sent: 50 messages")
    expect(page.get_by_label("Message", exact=True)).to_have_value("message 50")  # not lost
    page.locator('[data-pane="socket"] [data-reconnect]').click()
    shows(page, *(f"message {number}" for number in range(50)))
    expect(page.locator("[data-outbox] li")).to_have_count(0)


def test_the_room_is_chosen(demo: Demo, open_page: Callable[..., Any]) -> None:
    page = open_page("alice", demo.url, "/?room=old")
    say(page, "in the old room")
    shows(page, "in the old room")
    page.get_by_label("Room", exact=True).fill("new")
    page.get_by_role("button", name="Open").click()
    is_live(page)
    shows(page)
    assert page.url.endswith("?room=new")
    say(page, "in the new room")
    shows(page, "in the new room")


def test_a_killed_server_loses_and_doubles_nothing(
    tmp_path: Path, open_page: Callable[..., Any]
) -> None:
    with running_demo(tmp_path) as demo:
        alice = open_page("alice", demo.url)
        bob = open_page("bob", demo.url)
        second_tab = open_page("alice", demo.url)
        say(alice, "before")
        for page in (alice, bob, second_tab):
            shows(page, "before")
        port = demo.port
        demo.kill()
    for pane in PANES:
        state = alice.locator(f'[data-pane="{pane}"] .state')
        expect(state).to_have_attribute("data-state", "waiting")
    expect(alice.locator('[data-pane="socket"] .state')).to_contain_text("reconnecting in")
    demo.manage("publish", "room.lobby", json.dumps({"user": "shell", "text": "meanwhile"}))
    say(alice, "patiently")
    with running_demo(tmp_path, "--port", str(port)):
        for page in (alice, bob, second_tab):
            shows(page, "before", "meanwhile", "patiently")
            is_live(page)
        say(bob, "after")
        for page in (alice, bob, second_tab):
            shows(page, "before", "meanwhile", "patiently", "after")
            assert warnings(page) == 0


def test_a_page_that_is_signed_out_says_so_and_leads_to_the_login_and_back(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    page = open_page("bob", demo.url, "/?room=out")
    is_live(page)
    says_of_both(page, SAME)
    page.locator('[data-pane="stream"] [data-cut]').click()
    says_of_both(page, "Not live: Server-sent events (cut).")
    page.locator('[data-pane="socket"] [data-cut]').click()
    says_of_both(page, "Not live: WebSocket (cut), Server-sent events (cut).")
    page.context.clear_cookies()
    for pane in PANES:
        page.locator(f'[data-pane="{pane}"] [data-reconnect]').click()
        state = page.locator(f'[data-pane="{pane}"] .state')
        expect(state).to_have_attribute("data-state", "signed-out")
        warning = page.locator(f'[data-pane="{pane}"] [data-warning]')
        expect(warning.get_by_role("link", name="Sign in")).to_be_visible()
    says_of_both(page, "Not live: WebSocket (signed out), Server-sent events (signed out).")
    warning.get_by_role("link", name="Sign in").click()
    sign_in(page, "bob", demo.passwords()["bob"])
    is_live(page)
    assert page.url == f"{demo.url}/?room=out"
    page.context.clear_cookies()
    page.reload()
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "bob", demo.passwords()["bob"])
    is_live(page)
    assert page.url == f"{demo.url}/?room=out"


def sign_in(page: Any, username: str, password: str) -> None:
    """Fill in the login page."""
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_site_below_a_path_of_its_host(tmp_path: Path, open_page: Callable[..., Any]) -> None:
    """Pages, static files, sockets, streams, the admin and what is redirected to."""
    with running_demo(tmp_path, env={"ROOT_PATH": "app/"}) as demo:
        assert demo.url.endswith("/app")
        answers: list[tuple[int, str]] = []
        page = open_page("alice", demo.url, "/?room=below")
        page.on("response", lambda answer: answers.append((answer.status, answer.url)))
        page.reload()
        say(page, "first")
        shows(page, "first")
        is_live(page)
        page.get_by_label("Prompt").fill("Hello?")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("[data-answer]")).not_to_be_empty()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("link", name="Sign in").first.click()
        sign_in(page, "admin", demo.passwords()["admin"])
        page.get_by_role("link", name="Admin").click()
        expect(page.get_by_text("Site administration").first).to_be_visible()
        root = demo.url
        assert page.url == f"{root}/admin/"
        assert {url for _, url in answers if not url.startswith(f"{root}/")} == set()
        assert {each for each in answers if each[0] >= 400} == set()
