"""`realtime.admin.token_admin`, through Django's test client."""

import hashlib
import re
from datetime import timedelta
from unittest.mock import patch

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Permission
from django.test import Client, override_settings
from django.utils import timezone

from realtime.access import signals
from realtime.access.identity import Identity
from realtime.access.tokens import create_token
from realtime.access.users import find_identity
from realtime.admin import AccessTokenAdmin
from realtime.models import AccessToken

from ..support.admin import helper, page, url
from ..support.credentials import asked

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def make_token(client: Client, user, **fields: str) -> tuple[str, str]:
    """Make a token by the form; the token that is shown, and the page that shows it."""
    form = {"user": user.pk, "name": "phone", "never": "" if "expires_0" in fields else "on"}
    form |= {"expires_0": "", "expires_1": "", **fields}
    answer = client.post(url("realtime_accesstoken_add"), form, follow=True)
    shown = answer.content.decode()
    [token] = re.findall(r"rt_[\w-]{40,}", shown)
    return token, shown


def test_a_token_is_seen_once(boss, alice):
    token, shown = make_token(boss, alice)
    assert "shown again" in shown
    row = AccessToken.objects.get()
    assert (row.user, row.name, row.expires) == (alice, "phone", None)
    assert row.digest == hashlib.sha256(token.encode()).hexdigest()
    for address in (
        url("realtime_accesstoken_changelist"),
        url("realtime_accesstoken_change", row.pk),
        url("realtime_accesstoken_history", row.pk),
        url("index"),
    ):
        seen = page(boss, address)
        assert token not in seen
        assert row.digest not in seen


def test_token_is_in_the_page_alone(boss, alice):
    """A message may be kept in a cookie, which is signed and not encrypted."""
    form = {"user": alice.pk, "name": "", "never": "on"}
    answer = boss.post(url("realtime_accesstoken_add"), form)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    assert "messages" not in answer.cookies
    [token] = re.findall(r"rt_[\w-]{40,}", answer.content.decode())
    for address in ("index", "realtime_accesstoken_changelist"):
        assert token not in page(boss, url(address))


@pytest.mark.parametrize(
    ("permissions", "whose", "is_made"),
    [
        (["add_accesstoken"], "helper", True),
        (["add_accesstoken"], "alice", False),
        (["add_accesstoken"], "boss", False),
        (["add_accesstoken", "change_user"], "alice", True),
        (["add_accesstoken", "change_user"], "boss", False),
        (["add_accesstoken", "change_user"], "clerk", False),
        (["add_accesstoken", "change_user", "add_event"], "clerk", True),
        (["add_accesstoken", "change_accesstoken", "view_user"], "alice", False),
    ],
)
def test_token_of_another_user_is_for_those_who_may_change_that_user_and_are_no_less(
    boss, alice, permissions, whose, is_made
):
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="add_event"))
    client = helper(*permissions)
    user = User.objects.get(username=whose)
    form = {"user": user.pk, "name": "", "never": "on"}
    shown = client.post(url("realtime_accesstoken_add"), form).content.decode()
    assert ("rt_" in shown, "You can make tokens for yourself" in shown) == (is_made, not is_made)
    assert AccessToken.objects.filter(user=user).exists() is is_made


def test_token_of_a_user_who_is_not_active_is_refused(boss, alice):
    """Who is inactive has no rights to compare, and may have them back."""
    alice.user_permissions.add(Permission.objects.get(codename="add_event"))
    User.objects.filter(pk=alice.pk).update(is_active=False)
    form = {"user": alice.pk, "name": "", "never": "on"}
    for client in (helper("add_accesstoken", "change_user"), boss):
        shown = client.post(url("realtime_accesstoken_add"), form).content.decode()
        assert "This user is not active" in shown
    assert AccessToken.objects.count() == 0


class Answering(BaseBackend):
    """Alice may add events: it says so where it is asked, and lists no rights."""

    def has_perm(self, user_obj, perm, obj=None):
        return (user_obj.username, perm) == ("alice", "realtime.add_event")


@override_settings(
    AUTHENTICATION_BACKENDS=[
        "django.contrib.auth.backends.ModelBackend",
        f"{__name__}.{Answering.__name__}",
    ]
)
@pytest.mark.parametrize(("permissions", "is_made"), [([], False), (["add_event"], True)])
def test_rights_count_that_a_backend_does_not_list(alice, permissions, is_made):
    client = helper("add_accesstoken", "change_user", *permissions)
    form = {"user": alice.pk, "name": "", "never": "on"}
    shown = client.post(url("realtime_accesstoken_add"), form).content.decode()
    assert ("rt_" in shown, "You can make tokens for yourself" in shown) == (is_made, not is_made)


def test_form_begins_with_the_user_who_asks(boss):
    pk = User.objects.get(username="boss").pk
    assert f'<option value="{pk}" selected>boss' in page(boss, url("realtime_accesstoken_add"))


def test_a_token_with_an_end(boss, alice):
    make_token(boss, alice, expires_0="2100-01-02", expires_1="03:04:05")
    expires = AccessToken.objects.get().expires
    assert expires.isoformat() == "2100-01-02T03:04:05+00:00"


def test_a_token_without_a_user_needs_scopes(boss):
    answer = boss.post(url("realtime_accesstoken_add"), {"user": "", "name": "x", "never": "on"})
    assert answer.status_code == 200
    assert "needs scopes" in str(answer.context["adminform"].form.errors["scopes"])
    assert AccessToken.objects.count() == 0


def test_a_token_can_not_be_edited(boss, alice):
    _, row = create_token(alice, name="phone")
    address = url("realtime_accesstoken_change", row.pk)
    assert 'name="_save"' not in page(boss, address)
    answer = boss.post(address, {"user": alice.pk, "name": "other"})
    assert answer.status_code == 403
    assert AccessToken.objects.get().name == "phone"


def act(client: Client, action: str, *rows: AccessToken) -> str:
    form = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(url("realtime_accesstoken_changelist"), form, follow=True).content.decode()


def assert_told_of(told, user) -> None:
    """Every process is told, once, to check this user's connections."""
    told.assert_called_once()
    topic, what = told.call_args.args
    assert topic == signals.TOPIC
    assert f"'{user.pk}'" in repr(what)


def test_revoke_ends_the_token_and_what_lives_on_it(boss, alice):
    (_, one), (_, other), (_, kept) = create_token(alice), create_token(alice), create_token(alice)
    AccessToken.objects.filter(pk=other.pk).update(revoked=timezone.now())
    with patch.object(signals, "publish") as told:
        assert "1 token revoked" in act(boss, "revoke", one, other)
    assert_told_of(told, alice)
    found = [find_identity("token", str(row.pk)) for row in (one, other, kept)]
    assert found == [None, None, Identity(alice, "token", str(kept.pk))]


def test_a_deleted_token_ends_what_lives_on_it(boss, alice):
    _, row = create_token(alice)
    with patch.object(signals, "publish") as told:
        boss.post(url("realtime_accesstoken_delete", row.pk), {"post": "yes"})
    assert_told_of(told, alice)
    assert AccessToken.objects.count() == 0


def test_revoking_needs_more_than_the_view_permission(alice):
    _, row = create_token(alice)
    client = helper("view_accesstoken")
    assert 'value="revoke"' not in page(client, url("realtime_accesstoken_changelist"))
    act(client, "revoke", row)
    assert AccessToken.objects.get().revoked is None
    assert client.get(url("realtime_accesstoken_add")).status_code == 403


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "valid"),
        ({"expires": timezone.now() + timedelta(days=1)}, "valid"),
        ({"expires": timezone.now() - timedelta(days=1)}, "expired"),
        ({"revoked": timezone.now()}, "revoked"),
        ({"revoked": timezone.now(), "expires": timezone.now()}, "revoked"),
    ],
)
def test_the_list_shows_the_state_of_a_token(boss, alice, changes, state):
    create_token(alice)
    AccessToken.objects.update(**changes)
    assert f'field-state">{state}<' in page(boss, url("realtime_accesstoken_changelist"))


def test_tokens_are_searched_by_name_and_user(boss, alice):
    create_token(alice, name="phone")
    create_token(User.objects.get(username="boss"), name="laptop")
    address = url("realtime_accesstoken_changelist")
    for word in ("phone", "alice"):
        found = page(boss, address, q=word)
        assert ("phone" in found, "laptop" in found) == (True, False)


def test_a_site_without_users_in_its_admin_can_have_tokens():
    """Autocompletion needs the user in the same admin; a site's own user may be missing there."""
    site = admin.AdminSite("other")
    site.register(AccessToken, AccessTokenAdmin)
    tokens = site.get_model_admin(AccessToken)
    assert tokens.check() == []
    assert tokens.get_autocomplete_fields(None) == ()
    assert admin.site.get_model_admin(AccessToken).get_autocomplete_fields(None) == ("user",)


def test_token_with_scopes(boss, alice):
    make_token(boss, alice, scopes=" read:room.*\r\npublish:room.a ")
    assert AccessToken.objects.get().scopes == "read:room.* publish:room.a"
    assert "read:room.* publish:room.a" in page(boss, url("realtime_accesstoken_changelist"))


@pytest.mark.parametrize("scopes", ["room.*", "read:<b>", "read:a" * 2_000, "read:a\0"])
def test_what_is_wrong_with_scopes_is_said_at_their_field(boss, alice, scopes):
    form = {"user": alice.pk, "scopes": scopes, "never": "on"}
    answer = boss.post(url("realtime_accesstoken_add"), form)
    assert answer.context["adminform"].form.errors.keys() == {"scopes"}
    assert "<b>" not in answer.content.decode()
    assert AccessToken.objects.count() == 0


def test_service_has_no_scope_for_the_package_s_own_topics(boss):
    form = {"user": "", "name": "billing", "scopes": "read:a read:realtime.limits", "never": "on"}
    answer = boss.post(url("realtime_accesstoken_add"), form)
    [error] = answer.context["adminform"].form.errors["scopes"]
    assert "read:realtime.limits" in error
    assert AccessToken.objects.count() == 0


def test_service_is_made_by_superusers_alone(boss):
    form = {"user": "", "name": "billing", "scopes": "publish:*", "never": "on"}
    client = helper("add_accesstoken", "change_user", "add_event", "view_event")
    answer = client.post(url("realtime_accesstoken_add"), form)
    assert "Superusers alone" in answer.content.decode()
    assert AccessToken.objects.count() == 0
    assert "rt_" in boss.post(url("realtime_accesstoken_add"), form).content.decode()
    row = AccessToken.objects.get()
    assert (row.user, row.name, row.scopes) == (None, "billing", "publish:*")


# -- their end


def test_form_begins_with_an_end(boss):
    form = boss.get(url("realtime_accesstoken_add")).context["adminform"].form
    assert timedelta(days=89) < form.initial["expires"] - timezone.now() <= timedelta(days=90)
    assert not form.initial["never"]
    with override_settings(REALTIME={"TOKEN_DAYS": None}):
        form = boss.get(url("realtime_accesstoken_add")).context["adminform"].form
    assert (form.initial["expires"], form.initial["never"]) == (None, True)


def test_that_it_never_expires_has_to_be_said(boss, alice):
    form = {"user": alice.pk, "expires_0": "", "expires_1": ""}
    answer = boss.post(url("realtime_accesstoken_add"), form)
    assert "never expires" in str(answer.context["adminform"].form.errors["expires"])
    assert AccessToken.objects.count() == 0
    # Beside an end, as the form begins with one, it is what counts.
    make_token(boss, alice, expires_0="2100-01-02", expires_1="03:04:05", never="on")
    assert AccessToken.objects.get().expires is None


# -- rotation


def test_rotated_token_is_seen_once_and_the_old_one_goes_on_for_a_while(boss, alice, caplog):
    old, row = create_token(alice, name="phone", scopes="read:room.*", expires_in=10 * 86_400)
    with patch.object(signals, "publish") as told:
        shown = act(boss, "rotate", row)
    assert_told_of(told, alice)
    [new] = re.findall(r"rt_[\w-]{40,}", shown)
    row.refresh_from_db()
    fresh = AccessToken.objects.exclude(pk=row.pk).get()
    assert fresh.digest == hashlib.sha256(new.encode()).hexdigest() != row.digest
    assert (fresh.user, fresh.name, fresh.scopes) == (alice, "phone", "read:room.*")
    assert timedelta(days=9.9) < fresh.expires - timezone.now() <= timedelta(days=10)
    assert timedelta(hours=23) < row.expires - timezone.now() <= timedelta(hours=24)
    assert {asked(bearer=token).key for token in (old, new)} == {str(row.pk), str(fresh.pk)}
    addresses = [url("realtime_accesstoken_changelist"), url("index")]
    addresses += [url("realtime_accesstoken_history", each.pk) for each in (row, fresh)]
    pages = [page(boss, address) for address in addresses]
    assert not any(new in seen or fresh.digest in seen for seen in pages)
    assert 'field-state">rotated<' in pages[0]
    assert "Rotated" in pages[2]
    assert new not in caplog.text


def test_several_are_rotated_together_and_none_twice(boss, alice):
    rows = [create_token(alice, name=name)[1] for name in ("one", "two")]
    _, revoked = create_token(alice, name="gone")
    _, service = create_token(None, name="billing", scopes="read:a")
    AccessToken.objects.filter(pk=revoked.pk).update(revoked=timezone.now())
    shown = act(boss, "rotate", *rows, revoked, service)
    assert len(re.findall(r"rt_[\w-]{40,}", shown)) == 3
    assert all(f"{name}: <code>" in shown for name in ("one", "two", "billing"))
    assert "“gone” is no good any more" in shown
    assert "was rotated before" in act(boss, "rotate", rows[0])
    assert AccessToken.objects.count() == 7


def test_rotation_is_for_those_who_may_make_such_a_token(alice):
    _, row = create_token(alice)
    _, service = create_token(None, name="billing", scopes="read:a")
    client = helper("add_accesstoken", "change_accesstoken", "view_accesstoken")
    shown = act(client, "rotate", row, service)
    assert shown.count("You may not make a token in the place of") == 2
    assert "rt_" not in shown
    assert AccessToken.objects.count() == 2
    assert not AccessToken.objects.exclude(rotated=None, expires=None).exists()


def test_rotation_needs_more_than_to_end_tokens(alice):
    _, row = create_token(alice)
    client = helper("change_accesstoken", "view_accesstoken", "change_user")
    assert 'value="rotate"' not in page(client, url("realtime_accesstoken_changelist"))
    assert "rt_" not in act(client, "rotate", row)
    assert AccessToken.objects.count() == 1
