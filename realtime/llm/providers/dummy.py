"""A provider for a site's own tests: it answers with given text.

Use it as:

    dummy = DummyProvider("Hello", ", world")
    with override_settings(REALTIME={"LLM_PROVIDER": lambda: dummy}):
        ...
    assert dummy.prompts == ["Say hello"]
"""

import asyncio

from ..provider import Pieces, Provider, Stop


class DummyProvider(Provider):
    """Answers each prompt with the same pieces; `error` comes after them in place of the end."""

    name = "dummy"

    def __init__(
        self,
        *pieces: str,
        delay: float = 0.0,
        error: Exception | None = None,
        hangs: bool = False,
        stop: Stop | None = None,
    ) -> None:
        self.prompts: list[str] = []
        self.open = 0  # answers under way
        self._pieces = pieces or ("A dummy", " answer.")
        self._delay = delay  # seconds before each piece
        self._error = error
        self._hangs = hangs
        self._stop = stop or Stop("end")

    async def stream(self, prompt: str) -> Pieces:
        self.prompts.append(prompt)
        self.open += 1
        try:
            for piece in self._pieces:
                await asyncio.sleep(self._delay)
                yield piece
            if self._hangs:
                await asyncio.Event().wait()
            if self._error is not None:
                raise self._error
            yield self._stop
        finally:
            self.open -= 1
