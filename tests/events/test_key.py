"""`realtime.events.key`: what a publisher may tell its event by."""

import pytest

from realtime.events.key import MAX_KEY_LENGTH, validate_key
from realtime.exceptions import InvalidKey


@pytest.mark.parametrize("key", ["a", "order-7 paid", "ž🐎", "k" * MAX_KEY_LENGTH])
def test_a_key_is_taken_as_it_is(key):
    assert validate_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "k" * (MAX_KEY_LENGTH + 1), "a\nb", "a\0", "\x7f", "\ud800", 7, None, b"a"]
)
def test_another_is_refused_with_the_remedy(key):
    with pytest.raises(InvalidKey, match="use 1 to 200 characters"):
        validate_key(key)
