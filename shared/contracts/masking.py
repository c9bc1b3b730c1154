"""Secure aggregation: three questions around a round's training, so that the centre learns the hospitals' sum alone.

Keys, then shares, then the round itself (`TrainRequest.masking`), then the shares that unmask the sum; the protocol is
SecAgg+ (Bell et al. 2020), see docs/adr/0010. What a centre could weaken it by is not in a request: the constants below
are both sides'.
"""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.contracts.analysis import Contract
from shared.contracts.training import Identifier, Nonce, Reply, Request, SealedShare, TrainRequest

LEAST_PEERS: Final = 3
"""Of two hospitals each would know the other's update by the sum."""
MOST_PEERS: Final = 31
"""With so many others, at most, a hospital shares keys, itself included."""
CLIPPING: Final = 8.0
"""Largest change of one value that can be told."""
LEVELS: Final = 2**22
"""Steps between -`CLIPPING` and +`CLIPPING`; with `MODULUS` they leave room for a thousand hospitals' sum."""
MODULUS: Final = 2**32
HEADER: Final = 2
"""Values of a masked vector before the tensors' (in name order): 1, and 1 if the finder was taught."""

Node = Annotated[int, Field(ge=0, lt=2**64)]
"""Flower's id of a node."""
Exchange = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""One try of one round: keys and masks are made for it and used once."""
PublicKey = Annotated[str, Field(max_length=400, pattern=r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n -]+$")]
"""PEM, EC P-384."""


def threshold(peers: int) -> int:
    """Return how many of so many hospitals must answer to unmask their sum: above two thirds, and three at least.

    Above two thirds no centre can ask one half for one secret of a hospital and the other half for the other.
    """
    return max(LEAST_PEERS, 2 * peers // 3 + 1)


class KeysRequest(Contract):
    """Ask a node for the public keys of one exchange, and whether it would train: what follows is told here."""

    kind: Literal["masking-keys"] = "masking-keys"
    exchange: Exchange
    train: TrainRequest
    nonce: Nonce = ""


class KeysReply(Contract):
    """A node's fresh public keys."""

    kind: Literal["masking-keys"] = "masking-keys"
    mask_key: PublicKey
    """Masks are agreed by it."""
    share_key: PublicKey
    """Shares are sealed by it."""


class Peer(Contract):
    """A hospital's keys, as the centre hands them on."""

    node: Node
    mask_key: PublicKey
    share_key: PublicKey


class SharesRequest(Contract):
    """Hand a node its peers' keys (its own among them) and ask for its sealed shares."""

    kind: Literal["masking-shares"] = "masking-shares"
    run_key: Identifier
    exchange: Exchange
    peers: tuple[Peer, ...] = Field(min_length=LEAST_PEERS, max_length=MOST_PEERS)
    nonce: Nonce = ""


class SharesReply(Contract):
    """One sealed share for every peer but the node itself."""

    kind: Literal["masking-shares"] = "masking-shares"
    shares: tuple[SealedShare, ...] = Field(max_length=MOST_PEERS)


class UnmaskRequest(Contract):
    """Tell a node which of its peers' masked updates came, and ask for what unmasks their sum."""

    kind: Literal["masking-unmask"] = "masking-unmask"
    run_key: Identifier
    exchange: Exchange
    came: tuple[Node, ...] = Field(max_length=MOST_PEERS)
    lost: tuple[Node, ...] = Field(max_length=MOST_PEERS)
    """Shared keys and sent no update: their pairwise masks are in the others'."""
    nonce: Nonce = ""


class OpenShare(Contract):
    """A share of one hospital's secret: of its own mask's seed where its update came, of its mask key where not."""

    node: Node
    share: str = Field(max_length=1024, pattern=r"^([0-9a-f]{2})+$")


class UnmaskReply(Contract):
    """The shares that a node holds."""

    kind: Literal["masking-unmask"] = "masking-unmask"
    shares: tuple[OpenShare, ...] = Field(max_length=MOST_PEERS)


Step = KeysRequest | SharesRequest | UnmaskRequest
AnyRequest = Annotated[Request | Step, Field(discriminator="kind")]
StepReply = KeysReply | SharesReply | UnmaskReply
AnyReply = Annotated[Reply | StepReply, Field(discriminator="kind")]
