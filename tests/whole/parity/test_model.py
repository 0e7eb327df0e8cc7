"""Rows 15 and 17: tokens of a language model, long jobs, and clients that leave.

That a client's leaving reaches a long job of the server's own is not seen from outside, where the
connection is closed in any case: it is tried in tests/demo/test_progress.py.
"""

import asyncio
from contextlib import suppress
from typing import Any

from .background import Model, Vigil, begin_answer
from .clients import Stream, call, is_ok, resumable, stream, until, within
from .contestants import Server
from .outcomes import row, see

CHAT = "/chat?prompt=Hello"
TOKENS = ("One", " two", " thr", "ee é 你")
SOON_RELEASED = 2.0  # seconds


async def tokens_of(opened: Stream, seconds: float = 5.0) -> tuple[str, str | None]:
    """The text, and the name of the event that ended it."""
    text, name = "", None
    for event in await opened.rest(seconds):
        name = event.event
        if name is None:
            text += event.json["token"]
    return text, name


# -- row 15


@row(15, "The tokens come as events, then event: done")
async def test_tokens(here: Server, model: Model) -> None:
    model.answer(*TOKENS)
    async with stream(here, CHAT, here.users["alice"]) as opened:
        kind = opened.headers.get("content-type", "")
        see(kind.startswith("text/event-stream"), f"Content-Type was {kind!r}.")
        text, last = await tokens_of(opened)
    see(text == "".join(TOKENS), "Other tokens came.")
    see(last == "done", "The last event was not done.")


@row(15, "The first token comes before the model has finished")
async def test_first_token(here: Server, model: Model) -> None:
    model.answer("First", finish=False)
    async with stream(here, CHAT, here.users["alice"]) as opened:
        see((await opened.next()).json == {"token": "First"}, "Another token came.")


@row(15, "Only who is signed in may ask")
async def test_anonymous(here: Server, model: Model) -> None:
    await test_tokens(here, model)
    model.answer(*TOKENS)
    is_ok(await call(here, "GET", CHAT), 401)
    see(not model.requests, "The model was asked all the same.")


@row(15, "An answer that the model's server cuts is not called done")
async def test_cut(here: Server, model: Model) -> None:
    model.answer("One", " two", finish=False, cut=True)
    async with stream(here, CHAT, here.users["alice"]) as opened:
        see((await opened.next()).json == {"token": "One"}, "Another token came.")
        _, last = await tokens_of(opened)
    see(last == "error", "No event said that the answer was incomplete.")


@row(15, "A model that refuses is reported, and not as an answer")
async def test_refusal(here: Server, model: Model) -> None:
    model.refuse()
    try:
        async with stream(here, CHAT, here.users["alice"]) as opened:
            text, last = await tokens_of(opened, 20)
    finally:
        model.answer(*TOKENS)
    see((text, last) == ("", "error"), "No event said that there is no answer.")


@row(15, "An answer survives a reconnect: what was missed is replayed, once")
async def test_resumable(here: Server, model: Model) -> None:
    model.answer(*[f"{number} " for number in range(30)], pause=0.03)
    alice, text, last = here.users["alice"], "", None
    path = await begin_answer(here)
    name = None
    async with within(15, "The answer did not come to its end."):
        while name != "done":
            async with stream(here, path, alice, last) as opened:
                for _ in range(3):
                    event = await opened.next()
                    last, name = await resumable(event), event.event
                    if name == "done":
                        break
                    text += event.json["token"]
    see(text == "".join(f"{number} " for number in range(30)), "Tokens were missing or twice.")


async def is_read(model: Model) -> None:
    """The model has been asked, and its answer has come to an end."""
    await until(
        lambda: model.requests and model.requests[0].closed_at, 10, "The model was not read."
    )


@row(15, "An answer goes on while nobody is connected")
async def test_unattended(here: Server, model: Model) -> None:
    model.answer(*TOKENS, pause=0.1)
    path = await begin_answer(here)
    await is_read(model)
    async with stream(here, path, here.users["alice"]) as opened:
        text, name = "", None
        while name != "done":
            event = await opened.next()
            name = event.event
            text += "" if name else event.json["token"]
    see(text == "".join(TOKENS), "Other tokens came.")


@row(15, "An answer whose server is killed ends with an error, not with silence")
async def test_orphan(vigil: Vigil) -> None:
    await vigil.outcome("orphan")


@row(15, "Nobody else reads a user's answer")
async def test_others(here: Server, model: Model) -> None:
    model.answer(*TOKENS)
    path = await begin_answer(here)
    # Else it could come to the model when the next check counts who has asked.
    await is_read(model)
    for user, status in ((None, 401), (here.users["bob"], 403)):
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                answer = await call(here, "GET", path, user)
                is_ok(answer, status)


# -- row 17


async def is_released(model: Model) -> None:
    """The server has closed its request to the model."""
    await until(
        lambda: all(request.closed_at is not None for request in model.requests),
        SOON_RELEASED,
        "The request to the model was still open 2 s later.",
    )


@row(17, "A client leaves between two tokens: the request to the model is closed within 2 s")
async def test_leaving(here: Server, model: Model) -> None:
    model.answer("One", finish=False)
    async with stream(here, CHAT, here.users["alice"]) as opened:
        await opened.next()
        see(len(model.requests) == 1, "The model was not asked once.")
    await is_released(model)


@row(17, "A client leaves before the first token: the request to the model is closed within 2 s")
async def test_leaving_early(here: Server, model: Model) -> None:
    await test_tokens(here, model)
    model.answer(finish=False)

    async def wait_for_it() -> Any:
        return await call(here, "GET", CHAT, here.users["alice"])

    asking = asyncio.create_task(wait_for_it())
    await until(lambda: model.requests, 5, "The model was not asked.")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await is_released(model)


@row(17, "A long job tells its steps as they are done")
async def test_progress(here: Server) -> None:
    path = "/progress?steps=3&interval=0.05"
    async with stream(here, path, here.users["alice"]) as opened:
        events = [event for event in await opened.rest() if event.event is None]
    expected = [{"step": step, "of": 3} for step in (1, 2, 3)]
    see([event.json for event in events] == expected, "Other steps came.")
