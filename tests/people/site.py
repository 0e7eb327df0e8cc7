"""A site whose user model is `PERSON`: run as a program, it fails unless revocation works there."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import dj_database_url
import django
import pytest
from django.conf import settings
from django.core.management import call_command

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    AUTH_USER_MODEL=f"people.{os.environ['PERSON']}",
    INSTALLED_APPS=[
        "realtime",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "tests.people",
    ],
    DATABASES={"default": dj_database_url.parse(os.environ["DATABASE_URL"])},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    SESSION_ENGINE="tests.people.sessions",
    ROOT_URLCONF="realtime.urls",
    # Longer than any wait here: what ends a stream is the announcement of the change.
    REALTIME={"RECHECK_SECONDS": 300.0},
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.test import Client  # noqa: E402

from realtime.access.tokens import create_token  # noqa: E402
from realtime.delivery.publish import apublish  # noqa: E402
from realtime.testing import ConnectionClosed, ConnectionRefused, event_stream  # noqa: E402
from tests.people.models import Visit  # noqa: E402

Person = get_user_model()
URL = "/topics/room.a/events"


async def ends(stream: Any) -> None:
    with pytest.raises(ConnectionClosed):
        await stream.receive()


async def is_refused(token: str) -> None:
    with pytest.raises(ConnectionRefused, match="401"):
        async with event_stream(ASGIHandler(), URL, token=token):
            pass


async def revocation_ends_one_stream_alone() -> None:
    alice, bob = [await Person.objects.acreate(name=name) for name in ("alice", "bob")]
    hers, row = await asyncio.to_thread(create_token, alice)
    other, _ = await asyncio.to_thread(create_token, alice)
    his, _ = await asyncio.to_thread(create_token, bob)
    async with (
        event_stream(ASGIHandler(), URL, token=hers) as revoked,
        event_stream(ASGIHandler(), URL, token=other) as kept,
        event_stream(ASGIHandler(), URL, token=his) as left,
    ):
        row.revoked = row.created
        await row.asave()
        await ends(revoked)
        await is_refused(hers)
        if hasattr(bob, "has_left"):
            bob.has_left = True
            await bob.asave()
        else:
            await bob.adelete()
        await ends(left)
        await is_refused(his)
        await apublish("room.a", {"n": 1})
        assert (await kept.receive()).json() == {"n": 1}


async def change_by_a_derived_model_ends_a_stream() -> None:
    for kind in Person.__subclasses__():
        for change in ("asave", "adelete"):
            carol = await kind.objects.acreate(name=kind.__name__ + change)
            person = await Person.objects.aget(name=carol.name)
            token, _ = await asyncio.to_thread(create_token, person)
            async with event_stream(ASGIHandler(), URL, token=token) as stream:
                carol.has_left = True
                await getattr(carol, change)()
                await ends(stream)


async def end_of_a_session_ends_a_stream() -> None:
    dave = await Person.objects.acreate(name="dave")
    client = Client()
    await asyncio.to_thread(client.force_login, dave)
    headers = [(b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())]
    async with event_stream(ASGIHandler(), URL, headers=headers) as stream:
        await Visit.objects.all().adelete()
        await ends(stream)


async def revocation_works() -> None:
    async with event_stream(ASGIHandler(), "/topics/public.a/events") as anonymous:
        await revocation_ends_one_stream_alone()
        # From here on a process that has begun to listen, and looks at nobody unasked.
        await change_by_a_derived_model_ends_a_stream()
        if hasattr(Person, "get_session_auth_hash"):
            await end_of_a_session_ends_a_stream()
        await apublish("public.a", {"n": 2})
        assert (await anonymous.receive()).json() == {"n": 2}


call_command("migrate", verbosity=0, run_syncdb=True)
asyncio.run(revocation_works())
