"""The masks of secure aggregation: a key stream, read as numbers modulo 2**32.

Flower's own generator folds the 32-byte secret into 32 bits and feeds a Mersenne Twister: whoever holds a masked update
could try all seeds in minutes. Here it is ChaCha20 under the whole secret, from the library that does all else.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray

_NONCE = bytes(16)
"""A key is made for one mask, and never used again."""


def mask(key: bytes, length: int) -> NDArray[np.uint32]:
    """Return ``length`` numbers, uniform over 0 … 2**32 - 1, that follow from the 32 bytes of ``key``.

    Raises:
        ValueError: the key has another length.
    """
    stream = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(4 * length)), "<u4").astype(np.uint32)
