"""Encryption and authentication of what goes between processes, with keys that they share."""

import hashlib
import os
from collections.abc import Iterable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SALT_BYTES: Final = 16
NONCE: Final = bytes(12)  # a key is used once: of so many random salts none comes again
LABEL: Final = b"realtime layer 1"  # BLAKE2's `person`: the keys are of no other use


class NotAuthentic(ValueError):
    """What has come is not encrypted with a key of this site."""

    def __init__(self) -> None:
        super().__init__(
            "not encrypted with a key of this site. Is there another site on the same server, or a "
            "process with another SECRET_KEY or of an earlier release?"
        )


class Cipher:
    """Encrypts with the first of the keys, and knows what was encrypted with any of them.

    AES-GCM (NIST SP 800-38D), each message with a key of its own.
    """

    def __init__(self, keys: Iterable[str | bytes]) -> None:
        self._keys = [_digest(key) for key in keys]

    def encrypt(self, data: bytes) -> bytes:
        """Return the data encrypted."""
        salt = os.urandom(SALT_BYTES)
        return salt + _cipher(self._keys[0], salt).encrypt(NONCE, data, None)

    def decrypt(self, data: bytes) -> bytes:
        """Return the data; raise `NotAuthentic` for what none of the keys has encrypted."""
        salt, encrypted = data[:SALT_BYTES], data[SALT_BYTES:]
        for key in self._keys:
            try:
                return _cipher(key, salt).decrypt(NONCE, encrypted, None)
            except InvalidTag:
                pass
        raise NotAuthentic


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(hashlib.blake2b(salt, digest_size=32, key=key, person=LABEL).digest())
