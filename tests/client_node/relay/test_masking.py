"""The node's side of secure aggregation: what it tells, once and in turn, and what no centre gets out of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.relay import exchange, masking
from client_node.relay.exchange import Asked
from shared.contracts.errors import DataInvalidError, PolicyRefusedError
from shared.contracts.masking import (
    KeysReply,
    KeysRequest,
    Peer,
    SharesReply,
    SharesRequest,
    UnmaskReply,
    UnmaskRequest,
)
from shared.contracts.ontology import CellClass
from shared.contracts.training import Masking, Recipe, SealedShare, TrainRequest
from shared.crypto.masks import mask
from shared.crypto.signing import SigningKey
from shared.seal import check_seal, request_digest

EXCHANGE = "ab" * 16
TRAIN = TrainRequest(
    run_key="run",
    round=1,
    rounds=2,
    base_sha256="0" * 64,
    recipe=Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)),
    participants=3,
)
SENT = bytes(save({"w": np.zeros((2, 2), np.float16)}))
UPDATE = bytes(save({"w": np.ones((2, 2), np.float16)}))
KEYS = KeysRequest(exchange=EXCHANGE, train=TRAIN)


class Trio:
    """Three homes that have exchanged keys; the first is the one that is looked at."""

    def __init__(self, work: Path) -> None:
        self.homes = {number: work / str(number) for number in (1, 2, 3)}
        for home in self.homes.values():
            home.mkdir()
        self.peers = tuple(self._peer(number) for number in self.homes)

    def _peer(self, number: int) -> Peer:
        reply = masking.take(self.homes[number], KEYS, least=2)
        assert isinstance(reply, KeysReply)
        return Peer(node=number, mask_key=reply.mask_key, share_key=reply.share_key)

    def shares(self, number: int, peers: tuple[Peer, ...] | None = None, least: int = 2) -> SharesReply:
        request = SharesRequest(run_key="run", exchange=EXCHANGE, peers=peers or self.peers)
        reply = masking.take(self.homes[number], request, least=least)
        assert isinstance(reply, SharesReply)
        return reply

    def for_first(self) -> Masking:
        """Let all share, and return what comes to the first."""
        sealed = {number: self.shares(number) for number in self.homes}
        mine = [
            SealedShare(node=number, sealed=share.sealed)
            for number, reply in sealed.items()
            for share in reply.shares
            if share.node == 1
        ]
        return Masking(exchange=EXCHANGE, shares=tuple(mine))

    def masked(self) -> bytes:
        kept = masking.opened(self.homes[1], self.for_first(), least=2)
        return masking.masked(self.homes[1], kept, SENT, UPDATE, taught=False)

    def unmask(self, came: tuple[int, ...], lost: tuple[int, ...] = (), least: int = 2) -> UnmaskReply:
        request = UnmaskRequest(run_key="run", exchange=EXCHANGE, came=came, lost=lost)
        reply = masking.take(self.homes[1], request, least=least)
        assert isinstance(reply, UnmaskReply)
        return reply


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return Trio(tmp_path)


def test_shares_are_told_once(trio: Trio) -> None:
    assert len(trio.masked()) == 4 * (2 + 4)
    assert [share.node for share in trio.unmask((1, 2, 3)).shares] == [1, 2, 3]
    with pytest.raises(DataInvalidError, match="out of turn"):
        trio.unmask((1, 2, 3))
    assert list(trio.homes[1].iterdir()) == []


@pytest.mark.parametrize(
    ("came", "lost"),
    [((1, 2, 3), (2,)), ((2, 3), (1,)), ((1, 2), ()), ((1, 2, 3, 4), ()), ((1, 1, 2, 3), ()), ((1, 2, 3), (9,))],
)
def test_nothing_is_told_that_would_open_one_update(trio: Trio, came: tuple[int, ...], lost: tuple[int, ...]) -> None:
    trio.masked()
    with pytest.raises(DataInvalidError, match="nothing is told"):
        trio.unmask(came, lost)


def test_sum_of_two_is_never_unmasked(trio: Trio) -> None:
    trio.masked()
    with pytest.raises(PolicyRefusedError, match="2 of 3 hospitals are left, 3 are needed"):
        trio.unmask((1, 2), (3,))


def test_masks_are_used_once(trio: Trio) -> None:
    asked = trio.for_first()
    kept = masking.opened(trio.homes[1], asked, least=2)
    masking.masked(trio.homes[1], kept, SENT, UPDATE, taught=False)
    with pytest.raises(DataInvalidError, match="out of turn"):
        masking.opened(trio.homes[1], asked, least=2)


def test_steps_out_of_turn_and_of_another_exchange_are_refused(trio: Trio) -> None:
    with pytest.raises(DataInvalidError, match="out of turn"):
        trio.unmask((1, 2, 3))
    with pytest.raises(DataInvalidError, match="out of turn"):
        masking.opened(trio.homes[1], Masking(exchange=EXCHANGE, shares=()), least=2)
    trio.shares(1)
    with pytest.raises(DataInvalidError, match="out of turn"):
        trio.shares(1)
    with pytest.raises(DataInvalidError, match="out of turn"):
        masking.opened(trio.homes[1], Masking(exchange="cd" * 16, shares=()), least=2)


def test_keys_that_are_not_each_ones_own_are_refused(trio: Trio) -> None:
    first, second, third = trio.peers
    without_own = (second, third, third.model_copy(update={"node": 4}))
    twice = (first, second, third.model_copy(update={"mask_key": second.mask_key}))
    for peers in (without_own, twice, (first, second, second)):
        with pytest.raises(DataInvalidError, match="not each one's own"):
            trio.shares(1, peers)
    broken = third.model_copy(update={"share_key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"})
    with pytest.raises(DataInvalidError, match="is none"):
        trio.shares(1, (first, second, broken))
    with pytest.raises(PolicyRefusedError, match="only with 4 hospitals"):
        trio.shares(1, least=4)


def test_shares_that_the_centre_has_swapped_are_refused(trio: Trio) -> None:
    asked = trio.for_first()
    second, third = asked.shares
    for shares in (
        (second.model_copy(update={"node": 3}), third.model_copy(update={"node": 2})),
        (second, second),
        (second, third.model_copy(update={"node": 7})),
        (second, third.model_copy(update={"sealed": third.sealed[:-4]})),
    ):
        with pytest.raises(DataInvalidError, match="cannot be opened"):
            masking.opened(trio.homes[1], asked.model_copy(update={"shares": shares}), least=2)
    with pytest.raises(PolicyRefusedError, match="2 of 3 hospitals are left"):
        masking.opened(trio.homes[1], asked.model_copy(update={"shares": (second,)}), least=2)


@pytest.mark.parametrize("value", [9.0, -9.0, float("nan"), float("inf")])
def test_change_that_cannot_be_told_does_not_leave(trio: Trio, value: float) -> None:
    kept = masking.opened(trio.homes[1], trio.for_first(), least=2)
    update = bytes(save({"w": np.full((2, 2), value, np.float16)}))
    with pytest.raises(DataInvalidError, match="nothing has left"):
        masking.masked(trio.homes[1], kept, SENT, update, taught=False)


def test_mask_is_a_stream_of_the_whole_secret() -> None:
    stream = mask(bytes(31) + b"\x01", 100_000)
    assert not np.array_equal(stream, mask(b"\x01" + bytes(31), 100_000))  # folded to 32 bits they would be the same
    assert abs(stream.mean() / 2**31 - 1) < 0.01
    assert np.array_equal(stream[:10], mask(bytes(31) + b"\x01", 10))


def test_relay_seals_its_steps_writes_them_down_and_obeys_the_policy(tmp_path: Path) -> None:
    key, place = SigningKey.generate(), NodeHome(tmp_path)
    place.keys.mkdir()
    place.signing_key.write_bytes(key.to_pem())
    place.policy_file.write_text("")
    asked = Asked(KEYS.model_dump_json(), b"")
    given = exchange.answer(tmp_path, lambda: asked, (KeysRequest,))
    check_seal(given.seal, key.public, request_digest(asked.text, b""), given.text, b"")
    assert json.loads(given.text)["kind"] == "masking-keys"
    [entry] = Ledger(tmp_path).entries()
    assert (entry.kind, entry.subject, entry.size) == ("answer", "run", len(given.text))
    place.policy_file.write_text("[training]\nmost_rounds = 1\n")
    refused = json.loads(exchange.answer(tmp_path, lambda: asked, (KeysRequest,)).text)
    assert (refused["kind"], refused["code"]) == ("refusal", PolicyRefusedError.code)
