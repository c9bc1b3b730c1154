"""Adds masked updates up, takes the masks off their sum, and hands the mean to the strategy within.

The other half of `client_node.relay.masking`; quantities, keys and shares are those of Flower's SecAgg+. One sum is in
memory, however many hospitals there are.
"""

import base64
from collections.abc import Mapping, Set
from typing import Final

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from numpy.typing import NDArray

from server.federation.strategies.port import Aggregation, Closed, Result, Sent, Strategy, Update
from server.federation.strategies.tensors import FINDER, Tensors
from shared.contracts.errors import DataInvalidError, RunFailedError
from shared.contracts.masking import CLIPPING, HEADER, LEVELS
from shared.crypto.masks import mask

_MEAN: Final = "the mean"
_UNSOUND: Final = (
    "The masks do not come off the hospitals' sum: one of them sent a wrong update or share, and no update can be told"
    " from another. Look at the hospitals' software, or run without secure aggregation to find it."
)


class MaskedAggregation:
    """One round, in which no update is seen; see `Aggregation` for `updates`, `close` and `result`."""

    def __init__(self, strategy: Strategy, sent: Sent) -> None:
        self._inner: Aggregation = strategy.begin(sent)
        self._sent = sent
        self._length = HEADER + sum(sent.tensors[name].size for name in sent.tensors)
        self._sum: NDArray[np.uint32] = np.zeros(self._length, np.uint32)
        self._added = 0
        self._unmasked = 0

    @property
    def added(self) -> int:
        """How many masked vectors are in the sum."""
        return self._added

    @property
    def updates(self) -> int:
        """How many hospitals' updates are in the unmasked sum; 0 as long as it is masked."""
        return self._unmasked

    def add_masked(self, vector: bytes) -> None:
        """Add one hospital's masked vector.

        Raises:
            DataInvalidError: it has not the length that was asked for.
        """
        if len(vector) != 4 * self._length:
            raise DataInvalidError("The masked update has not as many values as were sent.")
        self._sum += np.frombuffer(vector, "<u4")
        self._added += 1

    def unmask(
        self, seeds: Mapping[int, list[bytes]], lost: Mapping[int, list[bytes]], keys: Mapping[int, str],
        pairs: Mapping[int, Set[int]],
    ) -> None:  # fmt: skip
        """Take the masks off and hand the mean on.

        ``seeds``: by node whose vector was added, the shares of its own mask's seed; ``lost``: by node that shared keys
        and sent nothing, those of its private mask key; each as many as the threshold. ``keys``: public mask keys;
        ``pairs``: for each lost node the nodes that have added a mask for it.

        Raises:
            RunFailedError: what is left is no sum of sound updates.
        """
        try:
            for shares in seeds.values():
                self._sum -= mask(combine_shares(shares), self._length)
            for node, shares in lost.items():
                private = bytes_to_private_key(combine_shares(shares))
                for peer in pairs[node]:
                    agreed = generate_shared_key(private, bytes_to_public_key(keys[peer].encode()))
                    pairwise = mask(base64.urlsafe_b64decode(agreed), self._length)
                    # The peer has added it where its own id is the larger one.
                    self._sum = self._sum - pairwise if peer > node else self._sum + pairwise
        except (ValueError, TypeError) as error:
            raise RunFailedError(_UNSOUND) from error
        count, taught = int(self._sum[0]), int(self._sum[1])
        if count != self._added or not 0 <= taught <= count:
            raise RunFailedError(_UNSOUND)
        self._inner.add(Update(_MEAN, self._mean(count, taught), examples=1, boxes=1 if taught else 0))
        self._unmasked = count

    def close(self) -> Closed:
        """See `Aggregation`."""
        return self._inner.close() if self._unmasked else Closed()

    def result(self) -> Result:
        """See `Aggregation`."""
        return self._inner.result()

    def _mean(self, count: int, taught: int) -> Tensors:
        """Return what was sent plus the mean change: of the finder's tensors over those hospitals that taught it."""
        # Each hospital's values are shifted by CLIPPING; Flower's function takes off one of these shifts.
        total = dequantize([self._sum[HEADER:].astype(np.int64)], CLIPPING, LEVELS)[0] - (count - 1) * CLIPPING
        mean: Tensors = {}
        start = 0
        for name in sorted(self._sent.tensors):
            before = self._sent.tensors[name]
            weight = max(taught, 1) if name.startswith(FINDER) else count
            change = total[start : start + before.size].reshape(before.shape) / weight
            mean[name] = np.asarray(before + change, np.float32)
            start += before.size
        return mean
