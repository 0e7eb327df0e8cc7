"""What a provider is, and the answer that is read from one."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any, Final, Self, TypeAlias

from ..exceptions import InvalidPrompt, ProviderError
from .conf import settings

logger = logging.getLogger("realtime.llm")


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an answer ended, and what it cost where the provider says so.

    `end`: it is complete; `length`: a limit cut it; `refusal`: the model won't; others are the
    provider's own words.
    """

    reason: str
    usage: Mapping[str, int] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return what a client gets to see as the data of `done`."""
        return {"stop_reason": self.reason, **({"usage": dict(self.usage)} if self.usage else {})}


Pieces: TypeAlias = AsyncGenerator[str | Stop, None]


class Provider(ABC):
    """Answers prompts. One object serves all of a process's requests."""

    name = "provider"
    model = ""
    """What the provider calls the model that it asks, for the admin."""

    @abstractmethod
    def stream(self, prompt: str) -> Pieces:
        """Write it as an async generator: pieces of text as they come, then a `Stop`.

        An empty piece says that the model is at work. Closing the generator has to close the
        upstream connection; without a `Stop` the answer counts as cut off.
        """

    def explain(self, error: Exception) -> str | None:
        """Return a sentence of our own about the upstream's error; None for "it failed".

        Never the error's text: those quote requests, and so keys.
        """
        return None

    async def aclose(self) -> None:  # noqa: B027 - for providers that have something to close
        """Close what is kept between requests."""


def validate_prompt(prompt: object) -> str:
    """Return `prompt` if a model may be asked it; raise `InvalidPrompt` with the remedy if not."""
    limit = settings.LLM_MAX_PROMPT_CHARS
    if prompt is None:
        raise InvalidPrompt("There is no prompt.")
    if not isinstance(prompt, str):
        raise InvalidPrompt(f"The prompt is a {type(prompt).__name__}, not a string.")
    if not prompt.strip():
        raise InvalidPrompt("The prompt is empty.")
    if len(prompt) > limit:
        raise InvalidPrompt(
            f"The prompt has {len(prompt)} characters; {limit} are the most (LLM_MAX_PROMPT_CHARS)."
        )
    if not _is_text(prompt):
        raise InvalidPrompt("The prompt holds half of a surrogate pair, which UTF-8 can't carry.")
    return prompt


class Answer:
    """One answer: an async context manager, and an iterator over its text.

    Leaving it closes the upstream request, whatever state that is in. `stop` is set once the
    iteration has ended by itself; otherwise it raises `ProviderError` with a sentence for the
    client.
    """

    def __init__(self, provider: Provider, prompt: str) -> None:
        self.stop: Stop | None = None
        self._provider = provider
        try:
            self._pieces = provider.stream(prompt)
        except Exception as error:
            raise self._explained(error) from None
        if not (hasattr(self._pieces, "__anext__") and hasattr(self._pieces, "aclose")):
            kind = type(self._pieces).__name__
            raise self._misused(f"stream() gives a {kind}: write it as `async def` with `yield`")
        self._surrogate = ""  # the first half of a pair, until the second comes
        self._room: int = settings.LLM_MAX_ANSWER_CHARS
        self._deadline = asyncio.get_running_loop().time() + settings.LLM_ANSWER_SECONDS

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._pieces.aclose()
        except Exception as error_in_close:
            # No reader waits for this answer any more.
            logger.info("%s: %s while closing", self._provider.name, kind_of(error_in_close))

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while self.stop is None:
            piece = await self._next()
            if isinstance(piece, Stop):
                self.stop = piece
            elif not isinstance(piece, str):
                raise self._misused(f"stream() yields text and a Stop, not {type(piece).__name__}")
            elif text := self._complete(piece):
                self._room -= len(text)
                if self._room < 0:
                    self.stop = Stop("length")
                    text = text[: self._room]
                if text:
                    return text
        raise StopAsyncIteration

    async def _next(self) -> str | Stop:
        loop = asyncio.get_running_loop()
        silence = settings.LLM_TOKEN_SECONDS
        deadline = min(loop.time() + silence, self._deadline)
        # Cancels the provider's generator, which is what is wanted: there is no going on after.
        timer = asyncio.timeout_at(deadline)
        try:
            async with timer:
                return await anext(self._pieces)
        except StopAsyncIteration:
            raise self._failed("ended its stream before the answer was complete") from None
        except Exception as error:
            if timer.expired():
                if deadline == self._deadline:
                    limit = settings.LLM_ANSWER_SECONDS
                    raise self._failed(f"was not done after {limit:g} s") from None
                raise self._failed(f"has sent nothing for {silence:g} s") from None
            raise self._explained(error) from None

    def _complete(self, piece: str) -> str:
        """Return the piece as text for UTF-8: some servers cut a surrogate pair in two."""
        text, self._surrogate = self._surrogate + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._surrogate = text[:-1], text[-1]
        if _is_text(text):
            return text
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _failed(self, what: str) -> ProviderError:
        logger.warning("%s %s", self._provider.name, what)
        return ProviderError(f"The model's provider {what}.")

    def _explained(self, error: Exception) -> ProviderError:
        if isinstance(error, ProviderError):
            return error
        try:
            sentence = self._provider.explain(error)
        except Exception:
            sentence = None
        where = "" if sentence else places_of(error)
        logger.warning("%s failed: %s%s", self._provider.name, kind_of(error), where)
        return ProviderError(sentence or FAILED)

    def _misused(self, what: str) -> ProviderError:
        logger.error("%s: %s", self._provider.name, what)
        return ProviderError(FAILED)


FAILED: Final = "The model's provider failed to answer; try again."


def kind_of(error: BaseException) -> str:
    """Return what may be logged of an error that might quote a key."""
    status = getattr(error, "status_code", None)
    return type(error).__name__ + (f" ({status})" if isinstance(status, int) else "")


def places_of(error: BaseException) -> str:
    """Return the files and lines of its traceback: its text, and the code's, may quote a key."""
    frames = ((frame.f_code, line) for frame, line in walk_tb(error.__traceback__))
    return "".join(
        f'\n  File "{code.co_filename}", line {line}, in {code.co_name}' for code, line in frames
    )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
