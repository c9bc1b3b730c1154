"""The centre's side of a round under secure aggregation: keys, shares, masked updates, and the unmasking of their sum.

The stages are those of Flower's `SecAggPlusWorkflow`, over our own port: answers are sealed, and a hospital that is
lost after any stage is left out, as long as so many are left as every node's own threshold asks for.
"""

import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from server.federation.answers import read_reply
from server.federation.fleet import Answer, Ask
from server.federation.strategies.masked import MaskedAggregation
from shared.contracts.errors import DataInvalidError, HematovisionError
from shared.contracts.masking import (
    LEAST_PEERS,
    MOST_PEERS,
    KeysReply,
    KeysRequest,
    Peer,
    SharesReply,
    SharesRequest,
    UnmaskReply,
    UnmaskRequest,
    threshold,
)
from shared.contracts.training import Masking, SealedShare, TrainReply, TrainRequest

STEP_SECONDS: Final = 120.0
"""For the stages in which nothing is trained; the round's deadline where that is shorter."""
Exchange = Callable[[Mapping[int, Ask], float], Iterator[tuple[Answer, str]]]
"""Sends asks by node, with seconds to wait; yields each node's first answer and its hospital, the seal checked."""

_Kind = TypeVar("_Kind", KeysReply, SharesReply, UnmaskReply)


class TooFewError(HematovisionError):
    """Too few hospitals are left to go on; nothing of any of them is known."""


@dataclass
class MaskedRound:
    """One try of one round. ``trained`` and ``refused`` are told of each hospital as it is known."""

    aggregation: MaskedAggregation
    train: Ask
    exchange: Exchange
    least: int
    seconds: float
    trained: Callable[[str, Answer, int], None]
    """Hospital, the answer to the round, and the bytes of its earlier answers."""
    refused: Callable[[str, Answer, HematovisionError], None]
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    silent: set[int] = field(default_factory=set)
    """Nodes that were asked and did not answer, at whichever stage."""
    _peers: dict[int, Peer] = field(default_factory=dict)
    _near: dict[int, set[int]] = field(default_factory=dict)
    """With whom each node shares keys, itself among them."""
    _bytes: dict[int, int] = field(default_factory=dict)

    def play(self, nodes: list[int]) -> None:
        """Go through the four stages with ``nodes``.

        Raises:
            TooFewError: too few are left after one of them.
            RunFailedError: the masks do not come off.
        """
        request = self._request
        keys = KeysRequest(exchange=self.key, train=request)
        for node, reply in self._ask({node: Ask(keys, b"") for node in nodes}, KeysReply):
            self._peers[node] = Peer(node=node, mask_key=reply.mask_key, share_key=reply.share_key)
        self._enough(len(self._peers), "gave keys", max(self.least, LEAST_PEERS))
        self._near = neighbours(list(self._peers))
        sealed = self._share()
        came = self._collect(sealed)
        self._unmask(came, set(sealed))

    @property
    def _request(self) -> TrainRequest:
        if not isinstance(self.train.request, TrainRequest):
            raise TypeError("only a round's training is masked")
        return self.train.request

    def _share(self) -> dict[int, dict[int, SealedShare]]:
        """Return, by node that shared, what it sealed for each neighbour."""
        asks = {
            node: Ask(
                SharesRequest(
                    run_key=self._request.run_key,
                    exchange=self.key,
                    peers=tuple(self._peers[peer] for peer in sorted(near)),
                ),
                b"",
            )
            for node, near in self._near.items()
        }
        found = {
            node: {share.node: share for share in reply.shares if share.node in self._near[node] - {node}}
            for node, reply in self._ask(asks, SharesReply)
        }
        self._near_enough(set(found), "shared keys")
        return found

    def _collect(self, sealed: Mapping[int, Mapping[int, SealedShare]]) -> set[int]:
        """Have every node train, and return those whose masked updates are in the sum."""
        asks = {}
        for node in sealed:
            near = sorted((self._near[node] & set(sealed)) - {node})
            shares = [sealed[peer][node].model_copy(update={"node": peer}) for peer in near if node in sealed[peer]]
            masking = Masking(exchange=self.key, shares=tuple(shares))
            asks[node] = replace(self.train, request=self._request.model_copy(update={"masking": masking}))
        came = set()
        for node, hospital, answer in self._answers(asks, self.seconds):
            try:
                reply = read_reply(answer)
                if not isinstance(reply, TrainReply):
                    raise DataInvalidError("The node's answer does not fit the request.")
                self.aggregation.add_masked(answer.tensors)
            except HematovisionError as error:
                self.refused(hospital, answer, error)
            else:
                came.add(node)
                self.trained(hospital, answer, self._bytes.get(node, 0))
        self._near_enough(came, "sent masked updates")
        return came

    def _unmask(self, came: set[int], shared: set[int]) -> None:
        asks = {
            node: Ask(
                UnmaskRequest(
                    run_key=self._request.run_key,
                    exchange=self.key,
                    came=tuple(sorted(self._near[node] & came)),
                    lost=tuple(sorted(self._near[node] & (shared - came))),
                ),
                b"",
            )
            for node in came
        }
        found: dict[int, list[bytes]] = {node: [] for node in shared}
        for node, reply in self._ask(asks, UnmaskReply):
            for share in reply.shares:
                if share.node in shared & self._near[node]:
                    found[share.node].append(bytes.fromhex(share.share))
        for node, shares in found.items():
            needed = threshold(len(self._near[node]))
            self._enough(len(shares), "helped to unmask the sum", needed)
            del shares[needed:]
        self.aggregation.unmask(
            {node: shares for node, shares in found.items() if node in came},
            {node: shares for node, shares in found.items() if node not in came},
            {node: peer.mask_key for node, peer in self._peers.items()},
            {node: self._near[node] & came for node in shared - came},
        )

    def _ask(self, asks: Mapping[int, Ask], kind: type[_Kind]) -> Iterator[tuple[int, _Kind]]:
        for node, hospital, answer in self._answers(asks, min(STEP_SECONDS, self.seconds)):
            try:
                reply = read_reply(answer)
                if not isinstance(reply, kind):
                    raise DataInvalidError("The node's answer does not fit the request; update its software.")
            except HematovisionError as error:
                self.refused(hospital, answer, error)
            else:
                yield node, reply

    def _answers(self, asks: Mapping[int, Ask], seconds: float) -> Iterator[tuple[int, str, Answer]]:
        waiting = set(asks)
        for answer, hospital in self.exchange(asks, seconds):
            waiting.discard(answer.node_id)
            self._bytes[answer.node_id] = self._bytes.get(answer.node_id, 0) + len(answer.reply) + len(answer.tensors)
            yield answer.node_id, hospital, answer
        self.silent |= waiting

    def _near_enough(self, here: set[int], what: str) -> None:
        for node in here or {0}:
            near = self._near.get(node, set())
            self._enough(len(near & here), what, threshold(len(near)))
        self._enough(len(here), what, max(self.least, LEAST_PEERS))

    def _enough(self, here: int, what: str, needed: int) -> None:
        if here < needed:
            raise TooFewError(
                f"{here} hospitals {what} in round {self._request.round}, secure aggregation needs {needed}; nothing of"
                " any of them was opened. See each hospital's reason in the round's table."
            )


def neighbours(nodes: list[int], most: int = MOST_PEERS) -> dict[int, set[int]]:
    """Return with whom each node shares keys, itself among them: all, or ``most`` (odd) on a shuffled ring."""
    if len(nodes) <= most:
        return {node: set(nodes) for node in nodes}
    ring, half = random.SystemRandom().sample(nodes, len(nodes)), most // 2
    return {
        node: {ring[(place + step) % len(ring)] for step in range(-half, half + 1)} for place, node in enumerate(ring)
    }
