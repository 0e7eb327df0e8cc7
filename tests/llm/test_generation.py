"""`realtime.llm.generation` over real sockets: answers that outlive their request, and end once."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User

from realtime.exceptions import InvalidKey
from realtime.llm import generation
from tests.support.attempts import three_tries_of
from tests.support.clients import bearer, eventually, open_stream, signed_in
from tests.support.servers import serving, wait_until

from .support import KEY, site_asking
from .test_answer_stream import Thread
from .upstream import Part, openai_events, torn

SHORT = {
    "LLM_TOKEN_SECONDS": 20.0,
    "LLM_PER_USER": 3,
    "LLM_PER_PROCESS": 4,
    "LLM_UNHEARD_SECONDS": 60.0,
    "LLM_HEARTBEAT_SECONDS": 0.2,
    "LLM_LEASE_SECONDS": 20.0,
    "LLM_MAX_ANSWER_CHARS": 3000,
    "LLM_BATCH_CHARS": 100,
    "HEAD_CHECK_SECONDS": 0.2,
}
HALF = openai_events(["one", " two"], stop_reason=None)
AT_LENGTH: list[Part] = [*HALF, *[0.5, HALF[-1]] * 60]  # is not silent however long the test takes


@contextmanager
def a_site(template: dict[str, str], *arguments: str, **constants: Any) -> Iterator[Any]:
    with Thread() as fake, site_asking(fake, template, {**SHORT, **constants}, *arguments) as site:
        site.fake = fake
        yield site


@pytest.fixture(scope="module")
def here(_site_template: dict[str, str]) -> Iterator[SimpleNamespace]:
    with a_site(_site_template, LLM_TOKEN_SECONDS=8.0) as site:
        yield site


@pytest.fixture(autouse=True)
def _over(request: pytest.FixtureRequest) -> Iterator[None]:
    """No answer of a test is left to the next one."""
    yield
    if "here" in request.fixturenames:
        site = request.getfixturevalue("here")
        site.shell.run(
            "from django.utils import timezone\nfrom realtime.llm.models import Generation\n"
            "Generation.objects.filter(ended=None).update(ended=timezone.now())"
        )
        # Their requests may not have come to the upstream yet.
        inside = f"{site.url}/tests/inside"
        wait_until(lambda: not httpx.get(inside).json()["answers"], 10, "the end of the answers")
        wait_until(lambda: not site.fake.open, 10, "the end of their requests")
        site.fake.requests.clear()
        assert KEY not in "\n".join(site.log)


def post(here: Any, prompt: Any = "Why?", user: str = "alice", **headers: str) -> httpx.Response:
    headers = {**bearer(here.tokens[user]), **headers}
    return httpx.post(f"{here.url}/chat", json={"prompt": prompt}, headers=headers, timeout=20)


async def start(here: Any, *parts: Part, user: str = "alice", **options: Any) -> dict[str, str]:
    here.fake.respond(*parts, **options)
    answer = await asyncio.to_thread(post, here, user=user)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


async def delete(here: Any, path: str, user: str = "alice") -> int:
    headers = bearer(here.tokens[user])
    answer = await asyncio.to_thread(httpx.delete, here.url + path, headers=headers, timeout=20)
    return answer.status_code


def listening(here: Any, answer: dict[str, str], user: str = "alice", **headers: str) -> Any:
    return open_stream(
        here.url + answer["events"], headers={**bearer(here.tokens[user]), **headers}
    )


async def read_to_end(stream: Any, seconds: float = 20.0) -> tuple[str, str, Any]:
    """The text, and the kind and data of the last event."""
    text = ""
    async with asyncio.timeout(seconds):
        while True:
            event = await stream.next()
            data = json.loads(event.data)
            if event.event != "message":
                return text, event.event, data
            text += data["token"]


async def test_an_answer_as_events_of_a_topic(here):
    words = [f"Wort{n} 東京 " for n in range(60)]
    answer = await start(here, *torn(openai_events(words), 1))
    assert answer["topic"].startswith("user.")
    assert answer["events"] == f"/topics/{answer['topic']}/events?after=0"
    async with listening(here, answer) as stream:
        text, kind, data = await read_to_end(stream)
    assert text == "".join(words)
    assert (kind, data["stop_reason"], data["usage"]["output_tokens"]) == ("done", "end", 5)
    async with listening(here, answer) as stream:  # after a reload
        assert await read_to_end(stream) == (text, kind, data)
    assert len(here.fake.requests) == 1


async def test_tabs_and_reconnects_see_the_same_and_pay_once(here):
    words: list[Part] = []
    head, *rest = openai_events([f"w{n} " for n in range(40)])
    for part in rest:
        words += [part, 0.02]
    answer = await start(here, head, *words)
    wanted = "".join(f"w{n} " for n in range(40))

    async def faithful() -> str:
        async with listening(here, answer) as stream:
            return (await read_to_end(stream))[0]

    async def restless() -> str:
        text, last = "", "0"
        while True:
            async with listening(here, answer, **{"Last-Event-ID": last}) as stream:
                for _ in range(3):
                    event = await stream.next()
                    last = event.id
                    if event.event == "done":
                        return text
                    text += json.loads(event.data)["token"]

    texts = await asyncio.gather(faithful(), restless(), faithful())
    assert texts == [wanted] * 3
    assert len(here.fake.requests) == 1


async def test_tokens_come_in_batches_and_the_first_at_once(here):
    async def read() -> None:
        first, *rest = openai_events(["one", *["x"] * 500])
        answer = await start(here, first, rest[0], 1.2, *rest[1:])
        async with listening(here, answer) as stream:
            loop = asyncio.get_running_loop()
            event, began = await stream.next(), loop.time()
            assert json.loads(event.data) == {"token": "one"}
            sizes = []
            while (event := await stream.next()).event == "message":
                sizes.append(len(json.loads(event.data)["token"]))
            assert loop.time() - began > 0.2
        assert sum(sizes) == 500
        assert max(sizes) == 100
        assert len(sizes) < 30

    await three_tries_of(read)


async def test_the_same_key_gets_the_same_answer(here):
    here.fake.respond(*HALF, hangs=True)
    key = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(*(asyncio.to_thread(post, here, **key) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["topic"] for answer in answers}) == 1
    await eventually(lambda: here.fake.requests, 10, "the request")
    assert len(here.fake.requests) == 1
    other = await asyncio.to_thread(post, here, "Something else", **key)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
    assert "another prompt" in other.json()["detail"]
    bobs = await asyncio.to_thread(post, here, user="bob", **key)
    assert bobs.json()["topic"] != answers[0].json()["topic"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"prompt": ""}', 400),
        (b'{"prompt": 7}', 400),
        (b'{"prompt": "\\ud83d"}', 400),
        (json.dumps({"prompt": "x" * 8001}).encode(), 400),
        (b'{"prompt": "' + b"x" * 3_000_000 + b'"}', 413),
    ],
)
def test_invalid_bodies_are_refused_before_the_provider_is_asked(here, body, status):
    headers = bearer(here.tokens["alice"])
    answer = httpx.post(f"{here.url}/chat", content=body, headers=headers, timeout=20)
    assert answer.status_code == status
    assert answer.json()["detail"]
    long_key = {"Idempotency-Key": "k" * 201}
    refused = post(here, **long_key)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_key")
    assert not here.fake.requests


@pytest.mark.parametrize("key", ["", "k" * 201, "\ud83d", "\n", 7], ids=ascii)
async def test_key_that_is_none_begins_nothing(key):
    with pytest.raises(InvalidKey):
        await generation.start(User(), "Why?", key=key)


def test_asking_needs_a_user_and_the_csrf_token(here):
    url = f"{here.url}/chat"
    assert httpx.post(url, json={"prompt": "x"}).status_code == 401
    here.fake.respond(*openai_events(["a"]))
    with signed_in(here, "alice") as client:
        assert client.post("/chat", json={"prompt": "x"}).status_code == 201
        del client.headers["X-CSRFToken"]
        assert client.post("/chat", json={"prompt": "x"}).status_code == 403


async def test_the_topic_is_its_owners(here):
    answer = await start(here, *openai_events(["a"]))
    url = here.url + answer["events"]
    for user, status in (("bob", 403), (None, 401)):
        headers = bearer(here.tokens[user]) if user else {}
        assert (await asyncio.to_thread(httpx.get, url, headers=headers)).status_code == status
    async with listening(here, answer, user="admin") as stream:
        assert (await read_to_end(stream))[0] == "a"


async def test_a_delete_ends_it(here):
    answer = await start(here, *AT_LENGTH)
    async with listening(here, answer) as stream:
        await stream.next()
        assert await delete(here, answer["cancel"], user="bob") == 404
        assert await delete(here, "/chat/nothing") == 404
        assert here.fake.open == 1
        assert await delete(here, answer["cancel"]) == 204
        _, kind, data = await read_to_end(stream)
        assert (kind, data) == ("done", {"stop_reason": "cancelled"})
        await eventually(lambda: not here.fake.open, 10, "the upstream's close")
        assert await delete(here, answer["cancel"]) == 204  # again: nothing more is published
        with pytest.raises(TimeoutError):
            await stream.next(0.5)


async def test_staff_may_end_it_too(here):
    answer = await start(here, *HALF, hangs=True)
    assert await delete(here, answer["cancel"], user="admin") == 204
    await eventually(lambda: not here.fake.open, 10, "the upstream's close")


ROWS = (
    "from realtime.llm.models import Generation\n"
    "result = list(Generation.objects.order_by('pk').values_list("
    "'name', 'outcome', 'model', 'input_tokens', 'output_tokens'))"
)


async def test_the_admin_cancels_it_on_any_worker(template):
    """Eight answers over two workers; the admin's request comes to one of them."""
    with a_site(
        template, "--workers", "2", LLM_PER_USER=8, LLM_PER_PROCESS=8, LLM_UNHEARD_SECONDS=60.0
    ) as site:
        site.fake.respond(*HALF, hangs=True)
        answers = [await asyncio.to_thread(post, site) for _ in range(8)]
        assert {answer.status_code for answer in answers} == {201}
        await eventually(lambda: site.fake.open == 8, 10, "the requests")
        async with listening(site, answers[0].json()) as stream:
            await stream.next()
            with signed_in(site, "admin") as client:
                page = client.get("/admin/realtime_llm/generation/?state=running")
                assert page.status_code == 200
                picked = re.findall(r'name="_selected_action" value="(\d+)"', page.text)
                assert len(picked) == 8
                form = {"action": "cancel", "_selected_action": picked}
                form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
                done = client.post(
                    "/admin/realtime_llm/generation/",
                    data=form,
                    headers={"Referer": site.url},
                    follow_redirects=True,
                )
                assert "8 answers cancelled." in done.text
            # Its own worker at once, the other with its next heartbeat.
            await eventually(lambda: not site.fake.open, 10, "the upstreams' close")
            _, kind, data = await read_to_end(stream)
            assert (kind, data) == ("done", {"stop_reason": "cancelled"})
        assert {row[1] for row in site.shell.run(ROWS)} == {"cancelled"}


async def test_what_the_admin_shows_is_kept(here):
    answer = await start(here, *openai_events(["a"]))
    async with listening(here, answer) as stream:
        await read_to_end(stream)
    name = answer["topic"].rpartition(".")[2]
    [row] = [row for row in here.shell.run(ROWS) if row[0] == name]
    assert list(row[1:]) == ["end", "gpt-6-luna", 7, 5]


async def test_the_length_limit(here):
    answer = await start(here, *openai_events(["x" * 700] * 5), hangs=True)
    async with listening(here, answer) as stream:
        text, kind, data = await read_to_end(stream)
    assert (len(text), kind, data) == (3000, "done", {"stop_reason": "length"})
    await eventually(lambda: not here.fake.open, 10, "the upstream's close")


@pytest.mark.parametrize(
    ("parts", "options", "says"),
    [
        ([b"{}"], {"status": 429, "headers": {"retry-after": "9"}}, "try again in 9 s"),
        (openai_events(["a"], error={"message": KEY}), {}, "failed to answer"),
        (HALF, {"cut": True}, "The model's provider"),
        (HALF, {"hangs": True}, "sent nothing for 8 s"),
    ],
)
async def test_no_silent_end(here, parts, options, says):
    answer = await start(here, *parts, **options)
    async with listening(here, answer) as stream:
        _, kind, data = await read_to_end(stream)
    assert kind == "error"
    assert says in data["detail"]
    assert KEY not in str(data)


async def test_so_many_per_user_and_per_process(here):
    for _ in range(3):
        await start(here, *AT_LENGTH)
    refused = await asyncio.to_thread(post, here)
    assert (refused.status_code, "3 answers under way" in refused.text) == (429, True)
    assert int(refused.headers["retry-after"]) > 0
    await start(here, *AT_LENGTH, user="bob")
    refused = await asyncio.to_thread(post, here, user="admin")
    assert (refused.status_code, "This server has too many" in refused.text) == (429, True)


async def test_it_goes_on_without_a_listener_for_a_while(here):
    first, *rest = openai_events(["one", " two"])
    answer = await start(here, first, rest[0], 0.8, *rest[1:])
    await asyncio.sleep(1)
    async with listening(here, answer) as stream:
        assert (await read_to_end(stream))[0] == "one two"


async def test_an_answer_without_listeners_is_stopped_after_a_while(template):
    async def wait() -> None:
        with a_site(template, LLM_UNHEARD_SECONDS=1.5) as site:
            heard = await start(site, *HALF, hangs=True)
            async with listening(site, heard) as stream:
                await stream.next()
                unheard = await start(site, *HALF, hangs=True)
                await eventually(lambda: site.fake.open == 2, 10, "the other's request")
                await eventually(lambda: site.fake.open == 1, 10, "the end of the other")
                await asyncio.sleep(1.5)
                assert site.fake.open == 1
            await eventually(lambda: not site.fake.open, 10, "the end")
            async with listening(site, unheard) as stream:
                text, kind, data = await read_to_end(stream)
            assert (text, kind) == ("one two", "error")
            assert "Nobody has listened for 1.5 s" in data["detail"]

    await three_tries_of(wait)


async def test_a_server_that_stops_says_so(template):
    """Over two workers: who listens to the one hears of the end of what the other answered."""
    with a_site(template, "--workers", "2", LLM_TOKEN_SECONDS=60.0) as site:
        for how in (signal.SIGHUP, signal.SIGTERM):
            answer = await start(site, *HALF, hangs=True)
            url, headers = site.url + answer["events"], bearer(site.tokens["alice"])
            async with open_stream(url, headers=headers) as stream:
                await stream.next()
            before = {*site.server.worker_pids()}
            os.kill(site.server.process.pid, how)
            await eventually(lambda: not site.fake.open, 30, "the close")  # two workers start
            if how == signal.SIGTERM:
                assert site.server.process.wait(20) == 0
            else:  # the other worker may not be replaced yet, and would end the next stream
                await eventually(
                    lambda old=before: not old & {*site.server.worker_pids()}, 30, "the other's end"
                )
            ours = (
                "from realtime.models import Event\nfrom realtime.llm.models import Generation\n"
                f"ours = Generation.objects.get(topic={answer['topic']!r})\n"
            )
            ended = f"{ours}result = ours.ended is not None"
            wait_until(lambda code=ended: site.shell.run(code), 20, "the end of the answer")
            found = site.shell.run(
                f"{ours}events = Event.objects.filter(topic__name=ours.topic).order_by('offset')\n"
                "result = [*events.values_list('type', 'data'), ours.outcome]"
            )
            assert found[-1] == "error"
            assert [kind for kind, _ in found[:-1]].count("error") == 1
            assert found[-2][0] == "error"
            assert "The server stopped" in found[-2][1]


async def test_after_a_kill_a_listener_finds_the_orphan(template):
    with a_site(template, "--workers", "2", LLM_LEASE_SECONDS=1.5) as site:
        answer = await start(site, *HALF, hangs=True)
        await eventually(lambda: site.fake.open, 10, "the request")
        for pid in site.server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not site.fake.open, 10, "the death")
        ends: list[tuple[str, str, Any]] = []
        async with asyncio.timeout(60):  # two workers start
            while not ends:
                with suppress(httpx.TransportError):
                    async with listening(site, answer) as one, listening(site, answer) as two:
                        ends = [await read_to_end(stream) for stream in (one, two)]
                await asyncio.sleep(0.1)
    for _, kind, data in ends:
        assert (kind, "has gone before" in data["detail"]) == ("error", True)


async def test_the_next_answer_finds_the_orphan_too(here):
    here.shell.run(
        "from datetime import timedelta\nfrom django.utils import timezone\n"
        "from realtime.llm.models import Generation\n"
        "Generation.objects.create(user=User.objects.get(username='alice'), name='dead', "
        "topic='user.1.chat.dead', beat=timezone.now() - timedelta(minutes=1), "
        "heard=timezone.now(), digest='')"
    )
    await start(here, *HALF, hangs=True)
    found = here.shell.run(
        "from realtime.models import Event\nfrom realtime.llm.models import Generation\n"
        "result = [Generation.objects.get(name='dead').outcome, "
        "Event.objects.get(topic__name='user.1.chat.dead').type]"
    )
    assert found == ["error", "error"]


async def test_a_delete_on_another_worker(here):
    with serving(here.env) as other:
        headers = bearer(here.tokens["alice"])

        async def cancel() -> None:
            answer = await start(here, *HALF, hangs=True)
            await eventually(lambda: here.fake.open, 10, "the request")
            url = other.url + answer["cancel"]
            gone = await asyncio.to_thread(httpx.delete, url, headers=headers)
            assert gone.status_code == 204
            await eventually(lambda: not here.fake.open, 1.5, "the upstream's close")

        await three_tries_of(cancel)


async def test_what_is_old_is_forgotten(here):
    answer = await start(here, *openai_events(["a"]))
    async with listening(here, answer) as stream:
        await read_to_end(stream)
    left = here.shell.run(
        "from datetime import timedelta\nfrom django.utils import timezone\n"
        "from realtime.llm.store import sweep\n"
        "from realtime.llm.models import Generation\nfrom realtime.models import Topic\n"
        f"ours = Generation.objects.filter(topic='{answer['topic']}')\n"
        "sweep()\nkept = ours.count()\n"
        "ours.update(ended=timezone.now() - timedelta(days=8))\n"
        f"sweep()\nresult = [kept, ours.count(), "
        f"Topic.objects.filter(name='{answer['topic']}').count()]"
    )
    assert left == [1, 0, 0]


async def test_nothing_is_kept_of_answers_that_have_ended(here):
    """Nothing is left in the process by answers that have ended."""
    for _ in range(3):
        answer = await start(here, *openai_events(["a"]))
        async with listening(here, answer) as stream:
            await read_to_end(stream)

    def tasks() -> list[str]:
        found: list[str] = httpx.get(f"{here.url}/tests/inside").json()["tasks"]
        return [name for name in found if "Run." in name]

    # Its last event is read before the task that has written it hears of it.
    await eventually(lambda: not tasks(), 10, "the end of its tasks")
