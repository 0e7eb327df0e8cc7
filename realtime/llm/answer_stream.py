"""An answer as server-sent events, on the request that asked for it."""

import json
from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from ..exceptions import DatabaseUnavailable, ProviderError, TooManyRequests
from ..streaming.response import EventStreamResponse, keep_alive
from ..streaming.sse import encode_sse
from .conf import settings
from .leases import leased
from .provider import Answer, Provider, validate_prompt
from .providers import get_provider
from .slots import slots

UNDER_WAY: Final = "answering"  # the ids tell a reconnecting EventSource's answer from a new one
FINISHED: Final = "finished"
CUT: Final = "The connection was lost before the answer was complete; ask again."


class AnswerStreamResponse(EventStreamResponse):
    """`data: {"token": ...}` for each piece, then `event: done`, or `event: error`.

    The upstream request is closed when the client leaves.
    """

    def __init__(self, provider: Provider, prompt: str, user: Any, **kwargs: Any) -> None:
        slots.check(user)  # before the status is sent; the slot is taken when the stream starts
        events = _events(provider, validate_prompt(prompt), user)
        source = keep_alive(events, settings.LLM_KEEPALIVE_SECONDS)
        super().__init__(source, keeps_alive=True, **kwargs)


async def answer_on_request(request: HttpRequest, prompt: object, user: Any) -> HttpResponseBase:
    """Return the response to a request for an answer; its prompt is asked once, and never again.

    An EventSource whose stream has ended sends its request again by itself. It gets an
    error event if the answer was cut, else 204 (stay away), and nothing is paid for twice.
    """
    asked = validate_prompt(prompt)
    last = request.headers.get("Last-Event-ID")
    if last == FINISHED:
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    if last == UNDER_WAY:
        return EventStreamResponse(_cut())
    return AnswerStreamResponse(await get_provider(), asked, user)


async def _events(provider: Provider, prompt: str, user: Any) -> AsyncGenerator[bytes, None]:
    try:
        with slots.take(user):  # of this process; that of all is known a little later
            async with leased(user) as unless_refused:
                # Sent at once: while the first token is slow, the reader sees that an answer comes.
                yield encode_sse(id=UNDER_WAY, retry=settings.SSE_RETRY_MS)
                async with Answer(provider, prompt) as answer:
                    next_text = partial(anext, answer, "")
                    while text := await unless_refused(next_text):
                        yield encode_sse(_json({"token": text}))
        assert answer.stop is not None
        yield encode_sse(_json(answer.stop.data()), event="done", id=FINISHED)
    except (ProviderError, TooManyRequests, DatabaseUnavailable) as error:
        yield _error(str(error))


async def _cut() -> AsyncGenerator[bytes, None]:
    yield _error(CUT)


def _error(detail: str) -> bytes:
    return encode_sse(_json({"detail": detail}), event="error", id=FINISHED)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
