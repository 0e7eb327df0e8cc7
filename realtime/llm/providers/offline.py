"""A provider without model and key: always the same words, so that a site can be tried."""

import asyncio
import re
from typing import Final

from ..provider import Pieces, Provider, Stop

WORD_SECONDS: Final = 0.03
ECHOED_CHARS: Final = 200
_WORD: Final = re.compile(r"\s*+\S+|\s+")

ANSWER: Final = (
    "No language model is connected here: this is the offline provider, and these words are "
    "always the same. They come one by one, as a model's would, so that you can cut the "
    "connection, reload the page or open it twice, and see what becomes of the answer. You asked: "
    "“{prompt}” To get a real answer, set ANTHROPIC_API_KEY, or OPENAI_API_KEY or "
    "OPENAI_BASE_URL, and restart."
)


class OfflineProvider(Provider):
    """Streams the words of `ANSWER`."""

    name = "offline"

    async def stream(self, prompt: str) -> Pieces:
        asked = " ".join(prompt.split())
        if len(asked) > ECHOED_CHARS:
            asked = f"{asked[:ECHOED_CHARS]}…"
        words = _WORD.findall(ANSWER.replace("{prompt}", asked))
        for word in words:
            yield word
            await asyncio.sleep(WORD_SECONDS)
        yield Stop("end", {"input_tokens": len(asked.split()), "output_tokens": len(words)})
