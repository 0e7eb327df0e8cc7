"""A site behind what ends TLS and passes TCP on, as stunnel does: nobody says `https` to Django."""

from collections.abc import Mapping

import httpx
import pytest

from ..support.servers import serving
from ..support.sites import shortened

ORIGIN = "https://www.example.com"


@pytest.mark.parametrize(
    ("trusted", "status"),
    [({}, 403), ({"CSRF_TRUSTED_ORIGINS": f"https://example.org, {ORIGIN}"}, 302)],
    ids=["not-named", "named"],
)
def test_a_page_signs_in_where_its_origin_is_named_in_the_environment(
    site: dict[str, str], trusted: Mapping[str, str], status: int
) -> None:
    host = ORIGIN.removeprefix("https://")
    headers = {"Host": host, "Origin": ORIGIN, "Referer": f"{ORIGIN}/login/"}
    with serving(shortened(site, {}, ALLOWED_HOSTS=host, **trusted)) as server:
        token = httpx.get(f"{server.url}/login/", headers=headers).cookies["csrftoken"]
        answer = httpx.post(
            f"{server.url}/login/",
            data={"username": "alice", "password": "sesame", "csrfmiddlewaretoken": token},
            headers={**headers, "Cookie": f"csrftoken={token}"},  # a secure one
        )
    assert answer.status_code == status
    assert ("sessionid" in answer.cookies) is (status == 302)
