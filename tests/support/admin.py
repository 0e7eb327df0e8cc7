"""Django's admin, through its test client."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

User = get_user_model()


@pytest.fixture
def boss() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("boss", password="sesame"))
    return client


@pytest.fixture
def alice():
    return User.objects.create_user("alice", password="sesame")


def url(name: str, *arguments: object) -> str:
    return reverse(f"admin:{name}", args=arguments)


def page(client: Client, address: str, **query: str) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200
    return answer.content.decode()


def helper(*permissions: str) -> Client:
    """A client of a member of staff with these permissions of the app only."""
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client
