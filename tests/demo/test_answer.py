"""The page's answer panel in a real browser: one answer, whatever the page does meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from realtime.llm.providers.offline import ANSWER

from ..support.servers import ROOT
from .support import Demo

pytest.importorskip("playwright", reason="needs pip install playwright")
from playwright.sync_api import expect

PATIENCE_MS = 15_000


def panel(page: Any, part: str) -> Any:
    return page.locator(f'[data-panel="answer"] [data-{part}]')


def ask(page: Any, prompt: str) -> str:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Ask", exact=True).click()
    return ANSWER.replace("{prompt}", prompt)


def test_it_survives_a_reload_and_shows_in_a_second_tab(
    demo: Demo, open_page: Callable[..., Any]
) -> None:
    page = open_page("alice", demo.url)
    whole = ask(page, "Why?")
    expect(panel(page, "answer")).to_contain_text("No language model", timeout=PATIENCE_MS)
    page.reload()
    tab = page.context.new_page()
    tab.goto(page.url)
    for each in (page, tab):
        expect(panel(each, "answer")).to_have_text(whole, timeout=PATIENCE_MS)
        expect(panel(each, "state")).to_have_text("Complete.")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_it_can_be_stopped(demo: Demo, open_page: Callable[..., Any]) -> None:
    page = open_page("bob", demo.url)
    # Its words are said again, and each takes its time: there is something left to stop.
    whole = ask(page, " ".join(["At", "length?", *"x" * 90]))
    expect(panel(page, "answer")).to_contain_text("No language", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(panel(page, "state")).to_have_text("Stopped.", timeout=PATIENCE_MS)
    assert whole.startswith(panel(page, "answer").inner_text())


def test_what_is_refused_is_said(demo: Demo, open_page: Callable[..., Any]) -> None:
    page = open_page("alice", demo.url)
    ask(page, "   ")
    expect(panel(page, "not-asked")).to_contain_text("The prompt is empty", timeout=PATIENCE_MS)
    page.goto(f"{demo.url}/?answer=user.99999.chat.abc")
    expect(panel(page, "state")).to_have_text("This answer can't be read.", timeout=PATIENCE_MS)


def test_the_lines_that_the_documentation_shows(demo: Demo, open_page: Callable[..., Any]) -> None:
    page = open_page("bob", demo.url)
    code = (ROOT / "docs" / "examples" / "listen.js").read_text()
    around = """async () => {
        const prompt = "From the docs?";
        const csrfToken = document.querySelector('meta[name="csrf-token"]').content;
        const output = document.querySelector("[data-answer]");
        %s
    }"""
    page.evaluate(around % code)
    whole = ANSWER.replace("{prompt}", "From the docs?")
    expect(panel(page, "answer")).to_have_text(whole, timeout=PATIENCE_MS)
