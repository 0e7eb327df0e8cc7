"""A demo, a browser, and pages whose user has signed in with a click."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import Demo, running_demo

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 15_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def _no_connection_left() -> None:
    """These tests talk to the demo's own database; the suite's fixture would make another."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo with an empty DATA_DIR and no other variable set."""
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium.

    For a module, not the session: as long as it runs, playwright has an event loop running in
    this thread, where other modules' async tests want theirs.
    """
    if not CHROMIUM.exists():
        pytest.skip("needs a browser: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the demo as a user who signs in with one click; each user has one browser context.

    Fails the test when a page's script did, or when its policy had to stop something.
    """
    contexts: dict[str, Any] = {}
    faults: list[str] = []

    def watch(page: Any) -> None:
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.extend(breach(message)))

    def open_as(username: str, url: str, path: str = "/") -> Any:
        is_new = username not in contexts
        if is_new:
            contexts[username] = browser.new_context()
        page = contexts[username].new_page()
        watch(page)
        if is_new:
            page.goto(url)
            page.get_by_role("button", name=username).click()
        page.goto(url + path)
        return page

    yield open_as
    for context in contexts.values():
        context.close()
    assert not faults


def breach(message: Any) -> Iterator[str]:
    """What a line in the browser's console says of the policy; a server that is down is none."""
    if "Content Security Policy" in message.text:
        yield message.text
