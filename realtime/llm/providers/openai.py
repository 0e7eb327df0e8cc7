"""Every server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp.

By the official SDK, not by hand: it knows the errors that come in the middle of a stream, and those
servers are tested against it. Set LLM_BASE_URL to the address that ends in /v1.
"""

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from ...exceptions import MissingPackage
from ..conf import settings
from ..provider import Pieces, Provider, Stop
from . import upstream

try:
    import openai
    from openai._streaming import ServerSentEvent
except ModuleNotFoundError as error:
    raise MissingPackage("LLM_PROVIDER = 'openai'", "openai", "openai") from error

DEFAULT_MODEL: Final = "gpt-6-luna"
COMPLETIONS: Final = "/chat/completions"
REASONS: Final = {"stop": "end", "content_filter": "refusal"}


class EventsWithData(openai.AsyncStream[object]):
    """The chunks of an answer, each as the JSON that it is.

    The SDK takes each blank line for an event, such as one after a `retry` or a comment of a
    gateway; by the standard (WHATWG HTML, section 9.2.6) what has no data is none.
    """

    async def _iter_events(self) -> AsyncIterator[ServerSentEvent]:
        async for event in super()._iter_events():
            if event.data:
                yield event


class OpenAIProvider(Provider):
    """Chat completions as a stream. Key and address from the settings, or where the SDK looks."""

    name = "openai"

    def __init__(self) -> None:
        base_url = settings.LLM_BASE_URL or None
        key = settings.LLM_API_KEY or os.environ.get("OPENAI_API_KEY")
        if not key and (base_url or os.environ.get("OPENAI_BASE_URL")):
            key = "none"  # a local server wants no key, the SDK wants one all the same
        if not key:
            # The SDK would take an administrator's key, OPENAI_ADMIN_KEY, in its place.
            raise openai.OpenAIError("Set OPENAI_API_KEY, or REALTIME['LLM_API_KEY'].")
        # No retries: a failure reaches the reader at once, and nothing is paid for twice.
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=base_url, max_retries=0, timeout=settings.LLM_ANSWER_SECONDS
        )
        self.model = settings.LLM_MODEL or DEFAULT_MODEL
        # OpenAI's own models refuse the name that the others know.
        is_own = self._client.base_url.host.endswith("openai.com")
        self._limit = "max_completion_tokens" if is_own else "max_tokens"

    async def stream(self, prompt: str) -> Pieces:
        reason, usage = None, {}
        # Not by `chat.completions.create`: its typed parameters and chunks, which are not validated
        # either, would delay the first token by half a millisecond and double the processor time
        # of an answer. Connections, errors and the stream are the SDK's all the same.
        async with await self._client.post(
            COMPLETIONS,
            body={
                "model": self.model,
                "messages": [{"role": "user", "content": prompt}],
                "stream": True,
                "stream_options": {"include_usage": True},
                self._limit: settings.LLM_MAX_TOKENS,
            },
            cast_to=object,
            stream=True,
            stream_cls=EventsWithData,
        ) as stream:
            chunk: Any
            async for chunk in stream:
                if found := chunk.get("usage"):
                    usage = _usage(found)
                for choice in chunk.get("choices") or ():  # the chunk with the usage has none
                    # Empty where only a role, or thoughts, have come: a sign of life.
                    yield (choice.get("delta") or {}).get("content") or ""
                    reason = choice.get("finish_reason") or reason
        if reason is not None:
            yield Stop(REASONS.get(reason, reason), usage)

    def explain(self, error: Exception) -> str | None:
        return upstream.explain(openai, error)

    async def aclose(self) -> None:
        await self._client.close()


def _usage(usage: Mapping[str, Any]) -> dict[str, int]:
    found = {
        "input_tokens": usage.get("prompt_tokens"),
        "output_tokens": usage.get("completion_tokens"),
    }
    return {name: count for name, count in found.items() if isinstance(count, int)}
