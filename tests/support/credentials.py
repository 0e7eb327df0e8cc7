"""Credentials, and requests that have them."""

from collections.abc import Iterable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.test import Client

from realtime.access.authentication import authenticate
from realtime.access.identity import Identity
from realtime.access.tickets import create_ticket
from realtime.access.tokens import create_token
from realtime.exceptions import NotIdentified


def sign_in(user: Any) -> str:
    client = Client()
    client.force_login(user)
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


def asked(
    *,
    session: str | None = None,
    bearer: str | None = None,
    query: str = "",
    headers: Iterable[tuple[bytes, bytes]] = (),
    **options: Any,
) -> Identity:
    headers = list(headers)
    if session is not None:
        headers.append((b"cookie", f"theme=dark; sessionid={session}; x=1".encode()))
    if bearer is not None:
        headers.append((b"authorization", f"Bearer {bearer}".encode()))
    scope = {"headers": headers, "query_string": query.encode()}
    return async_to_sync(authenticate)(scope, **options)


def refused(**request: Any) -> str:
    with pytest.raises(NotIdentified) as caught:
        asked(**request)
    return str(caught.value)


def deactivate(key: str | None, user: Any) -> None:
    user.is_active = False
    user.save()


def new_ticket(user: Any, **options: Any) -> str:
    """A ticket that somebody with an access token has got."""
    token, _ = create_token(user, **options)
    return async_to_sync(create_ticket)(asked(bearer=token))
