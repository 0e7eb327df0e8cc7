"""What a scope contains."""

import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from realtime.server import extensions, scope
from realtime.server.disconnect import DisconnectEvent
from realtime.server.fastlane import SocketLane
from realtime.server.forwarded import ForwardedHeaders, networks
from realtime.server.http_request import parse_head
from realtime.server.limits import Limits

from .support import Worker


def build(
    kind: str = "http",
    *headers: str,
    secure: bool = False,
    proxied: bool = False,
    proxies: str = "",
) -> Any:
    lines = "\r\n".join(["GET /a%2Fb?x HTTP/1.1", "Host: h", *headers]).encode("latin1")
    transport: Any = SimpleNamespace(
        peer=["1.1.1.1", 5], host=None, secure=secure, lane="lane", copies_files=False
    )
    names = (b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto")
    forwarded = ForwardedHeaders(*names, networks(proxies) if proxies else ())
    server = SimpleNamespace(
        root_path="",
        scope_extension={"draining": False},
        forwarded=forwarded if proxied else None,
    )
    return scope.build(kind, parse_head(lines, Limits()), transport, DisconnectEvent(), server)


@pytest.mark.parametrize(
    ("kind", "secure", "scheme"),
    [
        ("http", False, "http"),
        ("http", True, "https"),
        ("websocket", False, "ws"),
        ("websocket", True, "wss"),
    ],
)
def test_schemes(kind: str, secure: bool, scheme: str) -> None:
    built = build(kind, secure=secure)
    assert built["scheme"] == scheme
    assert ("method" in built) is (kind == "http")


def test_the_proxys_words_count_only_when_they_are_asked_for() -> None:
    headers = ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Port: 7", "X-Forwarded-Proto: https")
    assert build("http", *headers)["client"] == ["1.1.1.1", 5]
    built = build("http", *headers, proxied=True)
    assert (built["client"], built["scheme"]) == (["9.9.9.9", 7], "https")
    assert build("http", "X-Forwarded-For: \xff", proxied=True)["client"] == ["1.1.1.1", 5]


@pytest.mark.parametrize(("proxied", "root_path"), [(True, "/a b"), (False, "")])
def test_the_root_path_header_counts_only_behind_a_proxy(proxied: bool, root_path: str) -> None:
    built = build("http", "Daphne-Root-Path: /a%20b", proxied=proxied)
    assert built["root_path"] == root_path
    assert [name for name, _ in built["headers"]] == [b"host"]


def test_words_of_a_peer_that_is_no_trusted_proxy_count_for_nothing() -> None:
    headers = ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "Daphne-Root-Path: /a")
    seen = [
        (built["client"], built["scheme"], built["root_path"])
        for proxies in ("1.1.1.0/24", "2.2.2.2")
        for built in [build("http", *headers, proxied=True, proxies=proxies)]
    ]
    assert seen == [(["9.9.9.9", 0], "https", "/a"), (["1.1.1.1", 5], "http", "")]


def test_a_scope_can_be_pickled_as_daphnes_harness_does() -> None:
    built = build()
    lane = SocketLane(SimpleNamespace(send=len, pending=False, keep=None, abort=None))
    built["extensions"]["realtime.lane"] = {"lane": lane}
    copy = pickle.loads(pickle.dumps(built))
    assert extensions.fastlane(copy) is None
    event = extensions.disconnect_event(copy)
    assert event is not None
    assert not event.is_set()
    assert {**copy, "extensions": 0} == {**built, "extensions": 0}


def test_cookies_of_several_headers_are_one() -> None:
    headers = build("http", "Cookie: a=1", "X: y", "Cookie: b=2", "Cookie: c=3")["headers"]
    assert headers == [(b"host", b"h"), (b"cookie", b"a=1; b=2; c=3"), (b"x", b"y")]


def test_extensions() -> None:
    extensions = build()["extensions"]
    assert extensions["realtime.lane"] == {"lane": "lane"}
    assert extensions["realtime.server"] == {"draining": False}
    assert not extensions["realtime.disconnect"]["event"].is_set()


def test_the_scope_is_daphnes(shared: Worker) -> None:
    with shared.client() as client:
        client.request("/scope/a%20b%C3%BC?x=1", "X_Evil: 1", "X-Two: a", "X-Two: b")
        scope = json.loads(client.response().body)
    assert scope["path"] == "/scope/a bü"
    assert scope["raw_path"] == "/scope/a%20b%C3%BC"
    assert scope["query_string"] == "x=1"
    assert scope["headers"] == [["host", "test"], ["x-two", "a"], ["x-two", "b"]]
    assert (scope["http_version"], scope["scheme"], scope["method"]) == ("1.1", "http", "GET")
    assert scope["server"] == list(shared.address)
