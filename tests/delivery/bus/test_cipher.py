"""`realtime.delivery.bus.cipher`: what the keys have not encrypted is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.delivery.bus.cipher import Cipher, NotAuthentic

DATA = b"one event"


def test_no_two_ciphertexts_are_the_same_and_any_process_reads_them():
    one, other = Cipher(["key"]), Cipher([b"key"])
    sent = [one.encrypt(DATA) for _ in range(2)]
    assert sent[0] != sent[1]
    assert [other.decrypt(each) for each in sent] == [DATA, DATA]


def test_the_first_key_encrypts_and_all_are_known():
    sent = Cipher(["old"]).encrypt(DATA)
    rotated = Cipher(["new", "old"])
    assert rotated.decrypt(sent) == DATA
    with pytest.raises(NotAuthentic):
        Cipher(["old"]).decrypt(rotated.encrypt(DATA))


@given(st.binary(max_size=100))
def test_bytes_of_strangers_are_refused(data):
    with pytest.raises(NotAuthentic):
        Cipher(["key"]).decrypt(data)


def test_a_changed_bit_is_noticed_wherever_it_is():
    sent = Cipher(["key"]).encrypt(DATA)
    for index in range(len(sent)):
        changed = bytearray(sent)
        changed[index] ^= 1
        with pytest.raises(NotAuthentic):
            Cipher(["key"]).decrypt(bytes(changed))
