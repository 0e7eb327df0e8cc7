"""Pages of a queryset: by the key where that is the order, by a cursor where it is not."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.db import OperationalError, connections
from django.db.models import Count
from django.test import override_settings

from realtime.exceptions import InvalidPosition
from realtime.models import Event
from realtime.streaming.pages import after_key, in_key_order, row_pages

pytestmark = pytest.mark.django_db(transaction=True)


async def numbers(queryset: Any, **options: Any) -> list[list[int]]:
    """The keys, by page."""
    pages: list[list[int]] = []

    def encode(rows: list[Any]) -> bytes:
        pages.append([row.pk if hasattr(row, "pk") else row[0] for row in rows])
        return b"x" * len(rows)

    async for page in row_pages(queryset, encode, **options):
        assert page
    return pages


@pytest.mark.parametrize(
    ("queryset", "answer"),
    [
        (User.objects.all(), True),
        (User.objects.order_by("pk"), True),
        (User.objects.order_by("id"), True),
        (Event.objects.filter(type="a").select_related("topic"), True),
        (User.objects.order_by("-pk"), False),
        (User.objects.order_by("pk").reverse(), False),
        (User.objects.order_by("username"), False),
        (User.objects.order_by("pk", "username"), False),
        (User.objects.all()[:5], False),
        (User.objects.distinct(), False),
        (User.objects.annotate(n=Count("groups")), False),
        (User.objects.union(User.objects.all()), False),
        (User.objects.order_by("?"), False),
    ],
)
def test_which_querysets_need_no_cursor(queryset, answer):
    assert in_key_order(queryset) is answer


def test_an_order_of_the_models_own():
    assert not Event._meta.ordering or in_key_order(Event.objects.order_by())
    assert in_key_order(Group.objects.all())


@pytest.mark.parametrize("fields", [None, ("username",)])
async def test_an_error_names_the_row_that_can_not_be_written(fields):
    users = await User.objects.abulk_create([User(username=f"user{n}") for n in range(5)])

    def encode(rows: list[Any]) -> bytes:
        if any("user3" in (row.username if fields is None else row) for row in rows):
            raise ValueError("not JSON")
        return b"x"

    with pytest.raises(ValueError, match="not JSON") as caught:
        async for _ in row_pages(User.objects.all(), encode, fields=fields):
            pass
    assert caught.value.__notes__ == [f"The row of auth.User with the key {users[3].pk}."]


async def test_an_error_that_is_no_rows_blames_none():
    await User.objects.acreate(username="a")
    failing = [OSError("the disk")]

    def encode(rows: list[Any]) -> bytes:
        if failing:
            raise failing.pop()
        return b"x"

    with pytest.raises(OSError, match="the disk") as caught:
        async for _ in row_pages(User.objects.all(), encode):
            pass
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("order", ["pk", "-pk"])
async def test_all_rows_once_in_pages(order):
    await User.objects.abulk_create([User(username=f"user{n}") for n in range(25)])
    queryset = User.objects.order_by(order)
    wanted = [pk async for pk in queryset.values_list("pk", flat=True)]
    with override_settings(REALTIME={"PAGE_ROWS": 10}):
        for options in ({}, {"fields": ["pk"]}):
            pages = await numbers(queryset, **options)
            assert [pk for page in pages for pk in page] == wanted
            assert max(map(len, pages)) == 10
            for limit in (0, 1, 10, 11, 25, 99):
                pages = await numbers(queryset, limit=limit, **options)
                assert [pk for page in pages for pk in page] == wanted[:limit]


async def test_pages_have_a_size_in_bytes():
    await User.objects.abulk_create([User(username=f"user{n}") for n in range(300)])
    sizes: list[int] = []

    def encode(rows: list[Any]) -> bytes:
        sizes.append(len(rows))
        return b"x" * 1000 * len(rows)

    with override_settings(REALTIME={"PAGE_BYTES": 20_000}):
        async for _ in row_pages(User.objects.all(), encode, fields=["pk"]):
            pass
    assert sizes[0] == 100  # nothing is known of the rows yet
    assert set(sizes[1:]) == {20}


async def test_rows_that_are_added_and_deleted_meanwhile():
    await User.objects.abulk_create([User(username=f"user{n}") for n in range(30)])
    seen: list[int] = []

    def encode(rows: list[Any]) -> bytes:
        seen.extend(row[0] for row in rows)
        return b"x"

    with override_settings(REALTIME={"PAGE_ROWS": 10}):
        pages = row_pages(User.objects.all(), encode, fields=["pk"])
        await anext(pages)
        await User.objects.filter(pk__in=[seen[0], seen[9], seen[9] + 1]).adelete()
        new = await User.objects.acreate(username="new")
        async for _ in pages:
            pass
    assert len(seen) == len(set(seen)) == 30
    assert seen[-1] == new.pk


async def test_a_connection_that_was_dropped_is_replaced_unnoticed(monkeypatch):
    await User.objects.acreate(username="a")
    failures = iter([OperationalError("server closed the connection unexpectedly")])

    def encode(rows: list[Any]) -> bytes:
        for error in failures:
            raise error
        return b"x"

    pages = [page async for page in row_pages(User.objects.all(), encode, fields=["pk"])]
    assert pages == [b"x"]


@pytest.mark.parametrize("order", ["pk", "-pk"])
async def test_an_error_ends_it_and_leaves_nothing_open(order):
    await User.objects.acreate(username="a")

    def encode(rows: list[Any]) -> bytes:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        async for _ in row_pages(User.objects.order_by(order), encode, fields=["pk"]):
            pass
    # A cursor's transaction would keep SQLite from this, and the tests from dropping the database.
    await User.objects.acreate(username="b")
    assert not connections["default"].in_atomic_block


@pytest.mark.parametrize("after", ["x", "", "1.5", "1e3", [], {}, "9" * 5000])
def test_what_is_no_key(after):
    with pytest.raises(InvalidPosition, match="key"):
        after_key(User.objects.all(), after)


@pytest.mark.parametrize("after", ["0", "-1", 5, "9" * 30])
def test_what_is_a_key(after):
    assert list(after_key(User.objects.all(), after)) == []


@pytest.mark.parametrize("fields", [None, ("username",)])
@pytest.mark.parametrize("order", ["pk", "-pk"])
async def test_something_stands_for_a_row_that_can_not_be_written(fields, order, caplog):
    users = await User.objects.abulk_create([User(username=f"user{n}") for n in range(5)])

    def encode(rows: list[Any]) -> bytes:
        names = [row.username if fields is None else row[0] for row in rows]
        if "user3" in names:
            raise ValueError("not JSON")
        return "".join(name[-1] for name in names).encode()

    def instead(key: Any) -> bytes:
        return b"!" if key == users[3].pk or (fields and order == "-pk") else b"?"

    queryset = User.objects.order_by(order)
    pages = [page async for page in row_pages(queryset, encode, fields=fields, instead=instead)]
    assert b"".join(pages) == (b"012!4" if order == "pk" else b"4!210")
    [record] = caplog.records
    assert "can't be written: ValueError('not JSON')" in record.getMessage()


@pytest.mark.skipif(connections["default"].vendor != "sqlite", reason="others store no such text")
async def test_nor_for_one_that_can_not_be_read(caplog):
    groups = await Group.objects.abulk_create([Group(name=f"group{n}") for n in range(3)])

    def spoil() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "UPDATE auth_group SET name = CAST(X'ff' AS TEXT) WHERE id = %s", [groups[1].pk]
            )

    await sync_to_async(spoil)()

    def encode(rows: list[Any]) -> bytes:
        return b"".join(b"%d" % row[-1] for row in rows)

    pages = row_pages(Group.objects.all(), encode, fields=("name",), instead=b"!%d!".__mod__)
    keys = [group.pk for group in groups]
    assert b"".join([page async for page in pages]) == b"%d!%d!%d" % tuple(keys)
    assert f"The row of auth.Group with the key {keys[1]} can't be written" in caplog.text


async def test_a_database_that_is_gone_is_no_rows_fault(monkeypatch):
    await User.objects.acreate(username="a")

    def encode(rows: list[Any]) -> bytes:
        monkeypatch.setattr(type(connections["default"]), "is_usable", lambda self: False)
        raise OperationalError("gone")

    with pytest.raises(OperationalError, match="gone"):
        async for _ in row_pages(User.objects.all(), encode, instead=lambda key: b"!"):
            pass
