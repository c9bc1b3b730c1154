"""The node's side of secure aggregation: its update leaves under masks that cancel in the hospitals' sum only.

Keys, shares and masks are made by the functions of Flower's SecAgg+; see docs/adr/0010 for what differs from its
`secaggplus_mod`. What must not be known outside lies in `H/masking.json` from the keys until the sum is unmasked, for
one exchange: each step is taken once, in order, so that no two answers tell what one does not.
"""

import base64
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from cryptography.fernet import InvalidToken
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat, share_keys_plaintext_separate
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load

from shared.contracts.errors import DataInvalidError, PolicyRefusedError
from shared.contracts.masking import (
    CLIPPING,
    LEAST_PEERS,
    LEVELS,
    KeysReply,
    KeysRequest,
    OpenShare,
    Peer,
    SharesReply,
    SharesRequest,
    Step,
    StepReply,
    UnmaskReply,
    UnmaskRequest,
    threshold,
)
from shared.contracts.training import Masking, SealedShare
from shared.crypto.masks import mask
from shared.crypto.pki import write_private

SEED_BYTES: Final = 32
_FILE: Final = "masking.json"
_OUT_OF_TURN = "The request of secure aggregation comes out of turn: the round begins again."
_UNSOUND = "What the other hospitals have sealed for this one cannot be opened."


class Done(StrEnum):
    """The last step that was taken."""

    KEYS = "keys"
    SHARES = "shares"
    MASKED = "masked"


class Kept(BaseModel):
    """What a node keeps of an exchange; bytes in hexadecimal, by Flower's node id."""

    model_config = ConfigDict(extra="forbid")

    exchange: str
    done: Done = Done.KEYS
    mask_private: str
    mask_public: str
    share_private: str
    share_public: str
    node: int = 0
    peers: tuple[Peer, ...] = ()
    seed: str = ""
    """Of the node's own mask, which hides its update should the centre get its pairwise masks."""
    seed_shares: dict[int, str] = {}
    key_shares: dict[int, str] = {}
    """Of the peers' secrets, and of the node's own."""


def take(home: Path, request: Step, *, least: int) -> StepReply:
    """Answer one of the three questions; ``least``: with how few hospitals this one takes part.

    Raises:
        DataInvalidError: it comes out of turn, or would weaken what the masks hide.
        PolicyRefusedError: too few hospitals take part.
    """
    if isinstance(request, KeysRequest):
        return _keys(home, request)
    if isinstance(request, SharesRequest):
        return _shares(home, request, least)
    return _unmask(home, request, least)


def _keys(home: Path, request: KeysRequest) -> KeysReply:
    mask_private, mask_public = generate_key_pairs()
    share_private, share_public = generate_key_pairs()
    kept = Kept(
        exchange=request.exchange,
        mask_private=private_key_to_bytes(mask_private).decode(),
        mask_public=public_key_to_bytes(mask_public).decode(),
        share_private=private_key_to_bytes(share_private).decode(),
        share_public=public_key_to_bytes(share_public).decode(),
    )
    _write(home, kept)
    return KeysReply(mask_key=kept.mask_public, share_key=kept.share_public)


def _shares(home: Path, request: SharesRequest, least: int) -> SharesReply:
    kept = _read(home, request.exchange, Done.KEYS)
    peers = request.peers
    keys = [key for peer in peers for key in (peer.mask_key, peer.share_key)]
    own = [peer for peer in peers if (peer.mask_key, peer.share_key) == (kept.mask_public, kept.share_public)]
    if len(set(keys)) != len(keys) or len({peer.node for peer in peers}) != len(peers) or len(own) != 1:
        raise DataInvalidError("The hospitals' keys for secure aggregation are not each one's own.")
    if len(peers) < max(LEAST_PEERS, least):
        raise PolicyRefusedError(f"This hospital takes part only with {max(LEAST_PEERS, least)} hospitals or more.")
    seed = secrets.token_bytes(SEED_BYTES)
    need = threshold(len(peers))
    seeds = create_shares(seed, need, len(peers))
    privates = create_shares(kept.mask_private.encode(), need, len(peers))
    kept = kept.model_copy(update={"done": Done.SHARES, "node": own[0].node, "peers": peers, "seed": seed.hex()})
    sealed = []
    for peer, seed_share, key_share in zip(peers, seeds, privates, strict=True):
        if peer.node == kept.node:
            kept.seed_shares[peer.node], kept.key_shares[peer.node] = seed_share.hex(), key_share.hex()
            continue
        text = share_keys_plaintext_concat(kept.node, peer.node, seed_share, key_share)
        sealed.append(SealedShare(node=peer.node, sealed=encrypt(_sealing_key(kept, peer), text).decode()))
    _write(home, kept)
    return SharesReply(shares=tuple(sealed))


def opened(home: Path, masking: Masking, *, least: int) -> Kept:
    """Return what a node keeps, with the shares that its peers have sealed for it; before anything is trained.

    Raises:
        DataInvalidError: out of turn, or a share is not what it should be.
        PolicyRefusedError: too few hospitals are left.
    """
    kept = _read(home, masking.exchange, Done.SHARES)
    peers = {peer.node: peer for peer in kept.peers}
    seed_shares, key_shares = dict(kept.seed_shares), dict(kept.key_shares)
    for share in masking.shares:
        if share.node in seed_shares or share.node not in peers:
            raise DataInvalidError(_UNSOUND)
        try:
            text = decrypt(_sealing_key(kept, peers[share.node]), share.sealed.encode())
        except InvalidToken:
            raise DataInvalidError(_UNSOUND) from None
        source, target, seed_share, key_share = share_keys_plaintext_separate(text)
        if (source, target) != (share.node, kept.node):
            raise DataInvalidError(_UNSOUND)
        seed_shares[share.node], key_shares[share.node] = seed_share.hex(), key_share.hex()
    _enough(len(seed_shares), kept, least)
    return kept.model_copy(update={"seed_shares": seed_shares, "key_shares": key_shares})


def masked(home: Path, kept: Kept, sent: bytes, update: bytes, *, taught: bool) -> bytes:
    """Return the update's change under masks: ``HEADER`` and all values, uint32, little-endian.

    ``sent``, ``update``: safetensors of the same names and shapes. ``taught``: the finder learnt from this hospital.

    Raises:
        DataInvalidError: a value changed by more than can be told, or is not finite; nothing leaves.
    """
    before, after = load(sent), load(update)
    change = np.concatenate([(after[name].astype(np.float64) - before[name]).ravel() for name in sorted(before)])
    if not np.isfinite(change).all() or np.abs(change).max(initial=0.0) > CLIPPING:
        raise DataInvalidError(
            f"A value of this hospital's update changed by more than {CLIPPING:g}, which secure aggregation cannot"
            " tell; nothing has left."
        )
    vector = np.concatenate([[1, int(taught)], quantize([change], CLIPPING, LEVELS)[0]]).astype(np.uint32)
    # Once and no more: the same masks over two updates would tell their difference. Written before anything leaves.
    _write(home, kept.model_copy(update={"done": Done.MASKED}))
    vector += mask(bytes.fromhex(kept.seed), vector.size)
    for peer in kept.peers:
        if peer.node != kept.node and peer.node in kept.seed_shares:
            pairwise = _pairwise(kept, peer, vector.size)
            vector = vector + pairwise if kept.node > peer.node else vector - pairwise
    return vector.astype("<u4").tobytes()


def _unmask(home: Path, request: UnmaskRequest, least: int) -> UnmaskReply:
    kept = _read(home, request.exchange, Done.MASKED)
    came, lost = set(request.came), set(request.lost)
    # Both secrets of one hospital would open its update.
    known = set(kept.seed_shares)
    if came & lost or kept.node not in came or came | lost != known or len(request.came + request.lost) != len(known):
        raise DataInvalidError("What is asked for would open a single hospital's update; nothing is told.")
    _enough(len(came), kept, least)
    (home / _FILE).unlink()  # before it leaves: asked again with other names, there is nothing left to tell
    shares = [OpenShare(node=node, share=kept.seed_shares[node]) for node in sorted(came)]
    return UnmaskReply(shares=(*shares, *(OpenShare(node=node, share=kept.key_shares[node]) for node in sorted(lost))))


def _enough(here: int, kept: Kept, least: int) -> None:
    needed = max(threshold(len(kept.peers)), least)
    if here < needed:
        raise PolicyRefusedError(
            f"{here} of {len(kept.peers)} hospitals are left, {needed} are needed for secure aggregation."
        )


def _sealing_key(kept: Kept, peer: Peer) -> bytes:
    return _agreed(kept.share_private, peer.share_key)


def _pairwise(kept: Kept, peer: Peer, length: int) -> NDArray[np.uint32]:
    return mask(base64.urlsafe_b64decode(_agreed(kept.mask_private, peer.mask_key)), length)


def _agreed(private: str, public: str) -> bytes:
    """Return the secret of two keys, 32 bytes in URL-safe base64: what Fernet takes."""
    try:
        return generate_shared_key(bytes_to_private_key(private.encode()), bytes_to_public_key(public.encode()))
    except ValueError:
        raise DataInvalidError("A hospital's key for secure aggregation is none.") from None


def _write(home: Path, kept: Kept) -> None:
    write_private(home / _FILE, kept.model_dump_json().encode())


def _read(home: Path, exchange: str, done: Done) -> Kept:
    try:
        kept = Kept.model_validate_json((home / _FILE).read_bytes())
    except (OSError, ValidationError):
        raise DataInvalidError(_OUT_OF_TURN) from None
    if (kept.exchange, kept.done) != (exchange, done):
        raise DataInvalidError(_OUT_OF_TURN)
    return kept
