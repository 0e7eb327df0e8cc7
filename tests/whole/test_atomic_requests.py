"""A site with ATOMIC_REQUESTS: Django then refuses to call an async view that is not marked."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.http import HttpRequest
from django.test import override_settings
from django.urls import path

import docs.examples
from docs.examples import sse_view
from realtime.http.requests import json_errors
from realtime.testing import event_stream
from realtime.urls import urlpatterns as package_urlpatterns

from ..support.clients import bearer, open_stream
from ..support.sites import site_for_module

urlpatterns = [path("clock", sse_view.clock)]

ASYNC_URLS = """
import inspect
from django.urls import URLResolver, get_resolver
def walk(resolver, prefix):
    for each in resolver.url_patterns:
        if isinstance(each, URLResolver):
            yield from walk(each, prefix + str(each.pattern))
        elif inspect.iscoroutinefunction(each.callback):
            databases = getattr(each.callback, "_non_atomic_requests", [])
            yield prefix + str(each.pattern), list(databases)
result = list(walk(get_resolver("project.urls"), "/"))
"""


def is_view(value: Any) -> bool:
    is_coroutine = inspect.iscoroutinefunction(value)
    return is_coroutine and "request" in inspect.signature(value).parameters


def test_every_view_of_the_package_is_in_no_transaction() -> None:
    for each in package_urlpatterns:
        assert inspect.iscoroutinefunction(each.callback)
        assert each.callback._non_atomic_requests == {"default"}, each  # type: ignore[attr-defined]


def test_every_view_of_the_documentation_is_in_no_transaction() -> None:
    found = []
    for info in pkgutil.iter_modules(docs.examples.__path__, "docs.examples."):
        if info.name.endswith((".no_blocking", ".blocking_calls", ".site_tests")):
            continue  # fixtures, and tests, of a site that is not there
        ours = [each for each in vars(import_module(info.name)).values() if is_view(each)]
        found += [view for view in ours if view.__module__ == info.name]
    assert len(found) >= 10
    assert [view for view in found if not hasattr(view, "_non_atomic_requests")] == []


def test_view_is_in_no_transaction_of_any_database() -> None:
    with patch.dict(connections.settings, {"other": connections.settings["default"]}):

        @json_errors("GET")
        async def view(request: HttpRequest) -> Any: ...

    assert view._non_atomic_requests == {"default", "other"}  # type: ignore[attr-defined]


async def test_example_streams_with_atomic_requests() -> None:
    on = {**connections.settings["default"], "ATOMIC_REQUESTS": True}
    with (
        patch.dict(connections.settings, {"default": on}),
        override_settings(ROOT_URLCONF="tests.whole.test_atomic_requests"),
    ):
        async with event_stream(ASGIHandler(), "/clock") as stream:
            assert (await stream.receive()).data.startswith("20")


@pytest.fixture(scope="module")
def atomic_site(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with site_for_module(_site_template, {}, TEST_ATOMIC_REQUESTS="1") as site:
        yield site


async def test_every_url_works_with_atomic_requests(atomic_site: SimpleNamespace) -> None:
    urls = atomic_site.shell.run(ASYNC_URLS)
    assert {"/events", "/readyz", "/chat", "/firehose", "/stream/items"} <= {url for url, _ in urls}
    alice, bob = (bearer(atomic_site.tokens[name]) for name in ("alice", "bob"))
    async with httpx.AsyncClient(base_url=atomic_site.url, headers=alice) as client:
        for url, databases in urls:
            assert databases == ["default"], url
            path = url.replace("<topic>", "room.a").replace("<name>", "a")
            # No view has this method: the view answers, and begins nothing.
            assert (await client.patch(path)).status_code == 405, url
        for path in ("/healthz", "/readyz", "/stream/items", "/export/items.csv"):
            assert (await client.get(path)).status_code == 200, path
    topic = f"{atomic_site.url}/topics/room.a/events"
    async with open_stream(topic, headers=alice) as stream, httpx.AsyncClient() as client:
        assert (await client.post(topic, json={"n": 1}, headers=bob)).status_code == 201
        assert await stream.take(1) == [{"n": 1}]
