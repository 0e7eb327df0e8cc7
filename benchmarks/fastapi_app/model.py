"""Row 15: a language model's tokens, by the SDK of OpenAI or of Anthropic."""

import os
from collections.abc import AsyncIterator
from functools import cache

from anthropic import AnthropicError, AsyncAnthropic
from openai import AsyncOpenAI, OpenAIError

DEFAULT = "openai" if "OPENAI_API_KEY" in os.environ else "anthropic"
PROVIDER = os.environ.get("LLM_PROVIDER", DEFAULT)
MODEL = os.environ.get("LLM_MODEL", {"openai": "gpt-6-luna"}.get(PROVIDER, "claude-haiku-4-5"))
MAX_TOKENS = 4_096
ModelError = (OpenAIError, AnthropicError)

# One client for all requests: it keeps connections.
openai = cache(AsyncOpenAI)
anthropic = cache(AsyncAnthropic)


def tokens(prompt: str) -> AsyncIterator[str]:
    """The answer, piece by piece. The request to the provider ends with the iteration."""
    return openai_tokens(prompt) if PROVIDER == "openai" else anthropic_tokens(prompt)


async def openai_tokens(prompt: str) -> AsyncIterator[str]:
    """By OpenAI's protocol, which many others speak too."""
    async with await openai().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], stream=True
    ) as stream:
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield choice.delta.content


async def anthropic_tokens(prompt: str) -> AsyncIterator[str]:
    """By Anthropic's."""
    async with anthropic().messages.stream(
        model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=MAX_TOKENS
    ) as stream:
        async for text in stream.text_stream:
            yield text
