"""`realtime.delivery.bus.serializer`: what the keys have not encrypted is refused."""

import pytest
from channels_redis.serializers import registry
from cryptography.fernet import InvalidToken
from hypothesis import given
from hypothesis import strategies as st

from realtime.delivery.bus.serializer import FORMAT, AesGcmSerializer

MESSAGE = {"type": "realtime.event", "events": [{"data": '{"a":"ž"}', "offset": 2**63 - 1}]}


def serializer(*keys: str | bytes) -> AesGcmSerializer:
    made = registry.get_serializer(FORMAT, symmetric_encryption_keys=keys, expiry=60)
    assert isinstance(made, AesGcmSerializer)
    return made


def test_a_message_goes_round():
    one, other = serializer("key"), serializer(b"key")
    sent = [one.serialize(MESSAGE) for _ in range(2)]
    assert sent[0] != sent[1]
    assert [other.deserialize(each) for each in sent] == [MESSAGE, MESSAGE]
    assert b"realtime" not in sent[0]


def test_the_first_key_encrypts_and_all_are_known():
    sent = serializer("old").serialize(MESSAGE)
    rotated = serializer("new", "old")
    assert rotated.deserialize(sent) == MESSAGE
    with pytest.raises(InvalidToken):
        serializer("old").deserialize(rotated.serialize(MESSAGE))


@given(st.binary(max_size=100))
def test_bytes_of_others_are_refused(data):
    with pytest.raises(InvalidToken):
        serializer("key").deserialize(data)


def test_a_changed_bit_is_noticed_wherever_it_is():
    sent = serializer("key").serialize(MESSAGE)
    for index in range(len(sent)):
        changed = bytearray(sent)
        changed[index] ^= 1
        with pytest.raises(InvalidToken):
            serializer("key").deserialize(bytes(changed))


def test_without_keys_nothing_is_made():
    with pytest.raises(ValueError, match="needs symmetric_encryption_keys"):
        serializer()
