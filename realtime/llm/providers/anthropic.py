"""Anthropic's models, by the official SDK."""

from typing import Any, Final

from ...exceptions import MissingPackage
from ..conf import settings
from ..provider import Pieces, Provider, Stop
from . import upstream

try:
    import anthropic
except ModuleNotFoundError as error:
    raise MissingPackage("LLM_PROVIDER = 'anthropic'", "anthropic", "anthropic") from error

DEFAULT_MODEL: Final = "claude-sonnet-5-5"
REASONS: Final = {"end_turn": "end", "stop_sequence": "end", "max_tokens": "length"}


class AnthropicProvider(Provider):
    """`messages.stream`. Key and address come from the settings, or as the SDK finds them."""

    name = "anthropic"

    def __init__(self) -> None:
        # No retries: a failure reaches the reader at once, and nothing is paid for twice.
        self._client = anthropic.AsyncAnthropic(
            api_key=settings.LLM_API_KEY or None,
            base_url=settings.LLM_BASE_URL or None,
            max_retries=0,
            timeout=settings.LLM_ANSWER_SECONDS,
        )
        self.model = settings.LLM_MODEL or DEFAULT_MODEL

    async def stream(self, prompt: str) -> Pieces:
        async with self._client.messages.stream(
            model=self.model,
            max_tokens=settings.LLM_MAX_TOKENS,
            messages=[{"role": "user", "content": prompt}],
        ) as stream:
            async for event in stream:
                if event.type == "text":
                    yield event.text
                elif event.type == "thinking":
                    yield ""
                elif event.type == "message_stop":
                    yield _stop(event.message)
                    return

    def explain(self, error: Exception) -> str | None:
        return upstream.explain(anthropic, error)

    async def aclose(self) -> None:
        await self._client.close()


def _stop(message: Any) -> Stop:
    tokens = message.usage
    usage = {"input_tokens": tokens.input_tokens, "output_tokens": tokens.output_tokens}
    reason = message.stop_reason or "end"
    return Stop(REASONS.get(reason, reason), usage)
