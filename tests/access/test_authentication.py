"""Which of a request's credentials decides."""

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from realtime.access.identity import ANONYMOUS
from realtime.access.tokens import create_token

from ..support.credentials import asked, new_ticket, refused, sign_in

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def test_nothing_sent():
    assert asked() is ANONYMOUS
    assert asked(headers=[(b"cookie", b"theme=dark")]) is ANONYMOUS
    assert not ANONYMOUS.user.is_authenticated


def test_cookies_over_several_headers(alice):
    key = sign_in(alice)
    headers = [(b"cookie", f"sessionid={key}".encode()), (b"cookie", b"theme=dark")]
    assert asked(headers=headers).user == alice


@pytest.mark.parametrize("other", ["Basic YTpi", "Bearer x", ""])
def test_several_authorization_headers_are_refused(alice, other):
    token, _ = create_token(alice)
    both = [(b"authorization", f"Bearer {token}".encode()), (b"authorization", other.encode())]
    for headers in (both, both[::-1]):
        assert refused(headers=headers, session=sign_in(alice))


def test_the_site_may_name_its_cookie(alice):
    key = sign_in(alice)
    with override_settings(SESSION_COOKIE_NAME="sid"):
        assert asked(session=key) is ANONYMOUS
        assert asked(headers=[(b"cookie", f"sid={key}".encode())]).user == alice


def test_the_header_comes_before_the_query_and_both_before_the_session(alice, bob):
    carol = User.objects.create_user("carol")
    header, query = create_token(alice)[0], create_token(bob)[0]
    session = sign_in(carol)
    everything = {"session": session, "bearer": header, "query": f"token={query}"}
    assert asked(**everything).user == alice
    assert asked(session=session, query=f"token={query}").user == bob
    assert asked(session=session).user == carol
    ticket = new_ticket(alice)
    assert asked(session=session, query=f"ticket={ticket}").user == alice


@pytest.mark.parametrize(
    "bad",
    [
        {"bearer": "wrong"},
        {"bearer": ""},
        {"query": "token=wrong"},
        {"query": "token="},
        {"query": "token"},
        {"query": "ticket=wrong"},
        {"query": "ticket="},
    ],
    ids=str,
)
def test_a_bad_credential_is_refused_even_with_a_good_session(alice, bad):
    assert refused(session=sign_in(alice), **bad)


def test_a_bad_header_is_refused_even_with_a_good_token_in_the_query(alice):
    assert refused(bearer="wrong", query=f"token={create_token(alice)[0]}")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_the_scheme_is_written_in_any_case(alice, scheme):
    value = f"{scheme}  {create_token(alice)[0]} ".encode()
    assert asked(headers=[(b"authorization", value)]).user == alice


def test_another_scheme_is_not_for_us(alice):
    basic = [(b"authorization", b"Basic YWxpY2U6c2VzYW1l")]
    assert asked(headers=basic) is ANONYMOUS
    assert asked(headers=basic, session=sign_in(alice)).user == alice


def test_credentials_of_other_kinds_are_ignored(alice):
    token, session = create_token(alice)[0], sign_in(alice)
    sent = {"session": session, "bearer": token, "query": f"token={token}"}
    assert asked(**sent, credentials={"session"}).source == "session"
    assert asked(**sent, credentials={"query"}).source == "token"
    assert asked(session=session, credentials={"query", "ticket"}) is ANONYMOUS
    assert asked(bearer="wrong", session=session, credentials={"session"}).user == alice
