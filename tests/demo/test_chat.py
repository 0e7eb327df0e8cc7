"""`/chat` as the demo has it: no key, no model, the offline provider."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from realtime.llm.providers.offline import ANSWER

from ..conftest import _site_template  # noqa: F401 - this folder has no database of its own
from ..support.clients import bearer, open_stream, signed_in
from ..support.sites import site_for_module

KEYS = ("LLM_PROVIDER", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL")
WHOLE = ANSWER.replace("{prompt}", "Why?")


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:  # noqa: F811
    with site_for_module(_site_template, {}, **dict.fromkeys(KEYS, "")) as site:
        yield site


async def read(stream: Any) -> tuple[str, dict[str, Any]]:
    text = ""
    while (event := await stream.next()).event == "message":
        text += json.loads(event.data)["token"]
    assert event.event == "done"
    return text, json.loads(event.data)


async def test_on_the_request(here):
    headers = bearer(here.tokens["alice"])
    async with open_stream(f"{here.url}/chat?prompt=Why%3F", headers=headers) as stream:
        text, done = await read(stream)
        await stream.ended()
    assert text == WHOLE
    assert (done["stop_reason"], done["usage"]["input_tokens"]) == ("end", 1)


async def test_resumable_from_the_page(here):
    with signed_in(here, "alice") as client:
        answer = client.post("/chat", json={"prompt": "Why?"})
        assert answer.status_code == 201
        cookies = dict(client.cookies)
    async with open_stream(here.url + answer.json()["events"], cookies=cookies) as stream:
        assert (await read(stream))[0] == WHOLE


async def test_cancelled(here):
    headers = bearer(here.tokens["bob"])
    answer = httpx.post(f"{here.url}/chat", json={"prompt": "Why?"}, headers=headers).json()
    assert httpx.delete(here.url + answer["cancel"], headers=headers).status_code == 204
    async with open_stream(here.url + answer["events"], headers=headers) as stream:
        text, done = await read(stream)
    assert WHOLE.startswith(text)
    assert text != WHOLE
    assert done == {"stop_reason": "cancelled"}


def test_other_methods(here):
    answer = httpx.put(f"{here.url}/chat")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    answer = httpx.get(f"{here.url}/chat/abc")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE")
