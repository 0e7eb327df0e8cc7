"""`GET /metrics`: who may read it, and what a real server tells."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient
from prometheus_client.parser import text_string_to_metric_families as parse

from realtime.access.tokens import create_token
from realtime.metrics import collect

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("name", "status"), [("", 401), ("alice", 403), ("admin", 200), ("root", 200)]
)
def test_staff_may_read_it(client, name, status):
    if name:
        user = User.objects.create_user(name, is_staff=name == "admin", is_superuser=name == "root")
        token, _ = create_token(user)
        headers = {"Authorization": f"Bearer {token}"}
    answer = client.get("/metrics", headers=headers if name else {})
    assert answer.status_code == status
    assert (b"realtime_workers 1\n" in answer.content) == (status == 200)


async def test_anybody_may_where_the_site_says_so(settings):
    settings.REALTIME = {"METRICS_PUBLIC": True}
    answer = await AsyncClient().get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    families = {family.name for family in parse(answer.text)}
    assert "realtime_build_info" in families
    assert (await AsyncClient().head("/metrics")).status_code == 200
    assert (await AsyncClient().post("/metrics")).status_code == 405


async def test_what_can_not_be_read_is_503(settings, monkeypatch: Any):
    def fail() -> None:
        raise OSError(28, "No space left on device")

    settings.REALTIME = {"METRICS_PUBLIC": True}
    monkeypatch.setattr(collect, "read", fail)
    answer = await AsyncClient().get("/metrics")
    assert answer.status_code == 503
    assert "No space left" in answer.json()["detail"]
