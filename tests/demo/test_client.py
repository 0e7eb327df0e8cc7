"""`realtime.js` in a real browser, against what a server can do to it."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from ..support.attempts import three_tries
from ..support.servers import ROOT, wait_until
from .support import Demo

# What a page can write in five lines: a connection, and what it said, for the test to look at.
CONNECT = """
async ([kind, topic, options]) => {
  const clients = await import("/static/demo/realtime.js");
  const client = (window.client = new clients[kind](topic, options));
  window.said = [];
  for (const type of ["state", "event", "reset", "repeat", "problem"])
    client.addEventListener(type, ({ detail }) => window.said.push({ ...detail, kind: type }));
  client.connect();
}
"""
RECHECK_SECONDS = 30.0  # the latest at which a live connection's rights are looked at again
CLIENTS = ("TopicSocket", "TopicStream")


@pytest.fixture
def page(demo: Demo, open_page: Callable[..., Any]) -> Any:
    """A page of alice's that has the site's origin and no connection of its own."""
    page = open_page("alice", demo.url, "/login/")
    page.goto(f"{demo.url}/static/demo/icon.svg")
    return page


class Client:
    """A connection in the page."""

    def __init__(self, page: Any, kind: str, topic: str, **options: Any) -> None:
        self.page = page
        page.evaluate(CONNECT, [kind, topic, options])

    def said(self, kind: str) -> list[dict[str, Any]]:
        """The events of this kind so far."""
        return [item for item in self.page.evaluate("said") if item["kind"] == kind]

    def reaches(self, state: str, seconds: float = 20.0) -> dict[str, Any]:
        """Wait for a state that comes next; what was said with it."""
        found = wait_until(
            lambda: [item for item in self.said("state") if item["state"] == state],
            seconds,
            f"the state {state!r}",
        )
        self.page.evaluate("said.splice(0)")
        return found[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", CLIENTS)
def test_what_is_not_allowed_is_not_tried_again(page: Any, kind: str) -> None:
    client = Client(page, kind, "staff.secrets", after="0")
    assert "staff.secrets" in client.reaches("not-allowed")["reason"]
    page.wait_for_timeout(1_500)
    assert client.said("state") == []


@pytest.mark.parametrize("kind", CLIENTS)
def test_after_too_many_it_comes_back_when_the_server_says(page: Any, kind: str) -> None:
    detail = "Too many; retry after 600"
    refusal = {"status": 429, "headers": {"Retry-After": "600"}, "json": {"detail": detail}}
    page.route("**/topics/room.many/events", lambda route: route.fulfill(**refusal))
    page.route_web_socket(
        "**/ws/topics/room.many", lambda socket: socket.close(code=4429, reason=detail)
    )
    begun = page.evaluate("Date.now()")
    waiting = Client(page, kind, "room.many").reaches("waiting")
    assert waiting["reason"] == detail
    assert waiting["retryAt"] - begun >= 600_000


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_position_that_is_none_is_refused_with_the_reason(page: Any, kind: str) -> None:
    client = Client(page, kind, "room.refused", after="garbage")
    assert "is not an event id" in client.reaches("refused")["reason"]


@pytest.mark.parametrize("kind", CLIENTS)
def test_history_that_is_gone_is_a_reset(demo: Demo, page: Any, kind: str) -> None:
    event_id = demo.manage("publish", f"room.gone.{kind}", '"first"').split()[-1]
    client = Client(page, kind, f"room.gone.{kind}", after="zzzzzzzz-5")
    reset = wait_until(lambda: client.said("reset"), what="the reset")
    assert reset[0]["id"] == event_id == page.evaluate("client.position")
    demo.manage("publish", f"room.gone.{kind}", '"second"')
    events = wait_until(lambda: client.said("event"), what="the next event")
    assert [event["data"] for event in events] == ["second"]
    assert client.said("repeat") == []


def test_ephemeral_events_have_no_id_and_are_no_repetition(demo: Demo, page: Any) -> None:
    client = Client(page, "TopicStream", "room.ephemeral", after="0")
    client.reaches("live")
    for count, data in enumerate(("one", "two", "two"), 1):
        ephemeral = data == "two"
        options = {"ephemeral": ephemeral}
        publish = """async ([data, options]) => {
          const { TopicSocket } = await import("/static/demo/realtime.js");
          const socket = (window.writer ??= new TopicSocket("room.ephemeral"));
          socket.connect();
          if (socket.state !== "live")
            await new Promise((live) => socket.addEventListener("state", ({ detail }) =>
              detail.state === "live" && live()));
          return await socket.publish(data, options);
        }"""
        event_id = page.evaluate(publish, [data, options])
        assert (event_id is None) == ephemeral
        # One after the other: an ephemeral event may overtake one that goes through the log.
        wait_until(lambda count=count: len(client.said("event")) == count, what=f"event {count}")
    assert [event["id"] is None for event in client.said("event")] == [False, True, True]
    assert client.said("repeat") == []


def test_example_of_the_documentation(page: Any) -> None:
    example = (ROOT / "docs" / "examples" / "room_client.js").read_text()
    url, kind = "/static/demo/room_client.js", "text/javascript"
    page.route(f"**{url}", lambda route: route.fulfill(body=example, content_type=kind))
    lines: list[str] = []
    page.on("console", lambda message: lines.append(message.text))
    page.evaluate("async (url) => void (await import(url))", url)
    wanted = ["connecting ", "live ", "alice says hello", "connected"]

    def found() -> bool:
        page.evaluate("1")  # which hands out what was said by then
        return all(any(line.endswith(each) for line in lines) for each in wanted)

    wait_until(found, what=", ".join(wanted))


def test_a_refused_message_rejects_its_promise(page: Any) -> None:
    client = Client(page, "TopicSocket", "room.rejects")
    client.reaches("live")
    code = """client.publish("x", { type: "reset" }).then(() => "", (error) => error.code)"""
    assert page.evaluate(code) == "bad_event"


# What loses the answers to the first messages, and each time the connection.
LOSE_ANSWERS = """
(count) => {
  window.lost = [];
  const Native = WebSocket;
  window.WebSocket = class extends Native {
    set onmessage(listener) {
      super.onmessage = listener && ((message) => {
        const frame = JSON.parse(message.data);
        if (frame.type !== "published" || window.lost.length >= count) return listener(message);
        window.lost.push(frame.id);
        this.close();
      });
    }
  };
}
"""


def test_a_message_whose_answer_was_lost_is_sent_again_and_comes_once(page: Any) -> None:
    page.evaluate(LOSE_ANSWERS, 1)
    client = Client(page, "TopicSocket", "room.again", after="0")
    client.reaches("live")
    first = page.evaluate("client.publish('first')")
    second = page.evaluate("client.publish('second')")
    assert page.evaluate("lost") == [first]
    wait_until(lambda: len(client.said("event")) > 1, what="the events")
    assert [(event["id"], event["data"]) for event in client.said("event")] == [
        (first, "first"),
        (second, "second"),
    ]


def test_a_message_that_is_never_answered_is_given_up(page: Any) -> None:
    page.evaluate(LOSE_ANSWERS, 3)
    client = Client(page, "TopicSocket", "room.given-up")
    client.reaches("live")
    code = """client.publish("x", { key: "k" }).then(() => "", (error) => error.code)"""
    assert page.evaluate(code) == "unconfirmed"
    # By hand, with its key, it still comes once.
    assert [page.evaluate("client.publish('x', { key: 'k' })")] * 3 == page.evaluate("lost")


def test_a_server_that_falls_silent_is_left_and_found_again(demo: Demo, page: Any) -> None:
    client = Client(page, "TopicSocket", "room.silent", heartbeatSeconds=0.3)
    client.reaches("live")
    worker = demo.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert client.reaches("waiting")["reason"] == "The server has fallen silent."
    finally:
        os.kill(worker, signal.SIGCONT)
    client.reaches("live")


def test_a_restart_is_over_soon(demo: Demo, page: Any) -> None:
    def restart() -> None:
        page.evaluate("window.client?.close()")  # of an attempt before
        client = Client(page, "TopicSocket", "room.restart")
        client.reaches("live")
        demo.process.send_signal(signal.SIGHUP)
        wait_until(lambda: client.said("state"), 20, "the close")
        assert client.said("state")[0]["reason"] == "The server restarts."  # by 1012
        client.reaches("live", 2)

    three_tries(restart)


def test_a_sign_out_elsewhere_ends_the_connections_here(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    pages = [open_page("alice", demo.url, "/static/demo/icon.svg") for _ in CLIENTS]
    clients = [Client(page, kind, "room.out") for page, kind in zip(pages, CLIENTS, strict=True)]
    for client in clients:
        client.reaches("live")
    other = open_page("alice", demo.url)
    other.get_by_role("button", name="Sign out").click()
    for client in clients:
        client.reaches("signed-out", RECHECK_SECONDS + 15)
    other.wait_for_timeout(1_500)
    assert [client.said("state") for client in clients] == [[], []]
