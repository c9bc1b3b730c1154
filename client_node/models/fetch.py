"""Brings a promoted model to the node: signature first, then every file by its hash, then all of it at once."""

import hashlib
import shutil
from typing import Final

from client_node.centre import Centre, read_server_keys
from client_node.home import NodeHome
from client_node.models.store import CARD, DECISION, present
from client_node.policy import load_policy
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ModelInvalidError, SignatureInvalidError
from shared.contracts.laboratory import KNOWN_FILE
from shared.contracts.model_card import SignedModelCard
from shared.crypto.signing import VerifyKey
from shared.space import space_guard

_NAMES: Final = ("model.onnx", "delta.safetensors", KNOWN_FILE)
_RESERVED: Final = ("base",)
"""Folders below ``H/models`` that are no versions."""


def verify_card(home: NodeHome, signed: SignedModelCard) -> None:
    """Return if the card is signed by the release key that this hospital's policy trusts.

    Raises:
        SignatureInvalidError: it is not.
    """
    release = VerifyKey.from_base64(read_server_keys(home).release)
    trusted = load_policy(home).models.trusted_release_key
    if trusted and release.key_id != trusted:
        raise SignatureInvalidError("The pinned release key is not the one that policy.toml trusts: compare them.")
    if signed.key_id != release.key_id:
        raise SignatureInvalidError("The model is signed by a key that this hospital does not trust.")
    release.verify(canonical_bytes(signed.card), signed.signature)


def fetch_model(home: NodeHome, centre: Centre, signed: SignedModelCard) -> None:
    """Bring a verified version into ``H/models/<version>/``, unless it is there.

    Raises:
        SignatureInvalidError: the card is not signed by the trusted key.
        ModelInvalidError: a file is damaged, or one is missing.
        NoSpaceError: the disk is full.
    """
    verify_card(home, signed)
    card = signed.card
    if present(home, card.version):
        return
    names = {artefact.name for artefact in card.artefacts}
    if "model.onnx" not in names or not names <= set(_NAMES):
        raise ModelInvalidError("The model's card lists other files than this software knows: update it.")
    if card.version in _RESERVED:
        raise ModelInvalidError("The model's version has a name that no version may have.")
    with space_guard(home.path):
        _bring(home, centre, signed)


def _bring(home: NodeHome, centre: Centre, signed: SignedModelCard) -> None:
    card = signed.card
    partial, folder = home.models / f".{card.version}.partial", home.model(card.version)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    for artefact in card.artefacts:
        content = centre.artefact(card.version, artefact.name)
        if len(content) != artefact.size or hashlib.sha256(content).hexdigest() != artefact.sha256:
            raise ModelInvalidError(f"The model's file {artefact.name} does not match its signed card.")
        (partial / artefact.name).write_bytes(content)
    (partial / CARD).write_text(signed.model_dump_json(by_alias=True))
    if (folder / DECISION).is_file():  # about an earlier delivery
        shutil.copyfile(folder / DECISION, partial / DECISION)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
