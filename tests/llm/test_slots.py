"""`realtime.llm.slots`: how many answers are under way."""

from types import SimpleNamespace

import pytest
from django.test import override_settings

from realtime.exceptions import TooManyRequests
from realtime.llm.slots import Slots

ALICE, BOB, CAROL = (SimpleNamespace(pk=pk) for pk in (1, 2, 3))


@override_settings(REALTIME={"LLM_PER_USER": 2, "LLM_PER_PROCESS": 3})
def test_slots_are_taken_and_given_back():
    slots = Slots()
    with slots.take(ALICE), slots.take(ALICE):
        with pytest.raises(TooManyRequests, match="You have 2 answers") as caught:
            slots.check(ALICE)
        assert caught.value.retry_after > 0
        with slots.take(BOB):
            assert slots.taken == 3
            with pytest.raises(TooManyRequests, match="This server has too many"):
                slots.take(CAROL).__enter__()
        slots.check(CAROL)
    assert slots.taken == 0
    assert not slots._by_user


def test_an_error_gives_the_slot_back():
    slots = Slots()
    with pytest.raises(ZeroDivisionError), slots.take(ALICE):
        raise ZeroDivisionError
    assert slots.taken == 0
