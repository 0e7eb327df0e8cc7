"""Every server that speaks OpenAI's chat completions: OpenAI, vLLM, Ollama, llama.cpp.

By the official SDK, not by hand: it knows the errors that come in the middle of a stream, and those
servers are tested against it. Set LLM_BASE_URL to the address that ends in /v1.
"""

import os
from typing import Any, Final

from ..conf import settings
from ..exceptions import MissingPackage
from . import upstream
from .base import Pieces, Provider, Stop

try:
    import openai
except ModuleNotFoundError as error:
    raise MissingPackage("LLM_PROVIDER = 'openai'", "openai", "openai") from error

DEFAULT_MODEL: Final = "gpt-6-luna"
REASONS: Final = {"stop": "end", "content_filter": "refusal"}


class OpenAIProvider(Provider):
    """`chat.completions` as a stream. Key and address from the settings, or where the SDK looks."""

    name = "openai"

    def __init__(self) -> None:
        base_url = settings.LLM_BASE_URL or None
        key = settings.LLM_API_KEY or os.environ.get("OPENAI_API_KEY")
        if not key and (base_url or os.environ.get("OPENAI_BASE_URL")):
            key = "none"  # a local server wants no key, the SDK wants one all the same
        # No retries: whoever waits is told at once, and nothing is paid for twice.
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=base_url, max_retries=0, timeout=settings.LLM_ANSWER_SECONDS
        )
        self._completions = self._client.chat.completions  # imported when it is first named
        self.model = settings.LLM_MODEL or DEFAULT_MODEL
        # OpenAI's own models refuse the name that the others know.
        is_own = self._client.base_url.host.endswith("openai.com")
        self._limit = "max_completion_tokens" if is_own else "max_tokens"

    async def stream(self, prompt: str) -> Pieces:
        reason, usage = None, {}
        async with await self._completions.create(
            model=self.model,
            messages=[{"role": "user", "content": prompt}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={self._limit: settings.LLM_MAX_TOKENS},
        ) as stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    usage = _usage(chunk.usage)
                for choice in chunk.choices or ():  # the chunk with the usage has none
                    # Empty where only a role, or thoughts, have come: a sign of life.
                    yield (choice.delta.content if choice.delta is not None else None) or ""
                    reason = choice.finish_reason or reason
        if reason is not None:
            yield Stop(REASONS.get(reason, reason), usage)

    def explain(self, error: Exception) -> str | None:
        return upstream.explain(openai, error)

    async def aclose(self) -> None:
        await self._client.close()


def _usage(usage: Any) -> dict[str, int]:
    found = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    return {name: count for name, count in found.items() if isinstance(count, int)}
