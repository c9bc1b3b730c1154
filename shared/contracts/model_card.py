"""The card of a model version: what it is, what it learnt from, how good it is, and by whom it is signed."""

from datetime import datetime

from pydantic import Field

from shared.contracts.analysis import Contract
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import ModelPrivacy
from shared.contracts.training import CalibrationSummary, Count, FinderMetrics, Identifier, Recipe, Sha256, SiteMetrics


class ArtefactRef(Contract):
    """One file of a model version in the object store."""

    name: str
    """``delta.safetensors`` (trainable tensors, fp32), ``model.onnx`` or ``known.json`` (`KnownLaboratories`)."""
    sha256: Sha256
    size: int


class ModelCard(Contract):
    """Signed by the release key over `canonical_bytes` of this card (RFC 8785 style: sorted keys, no spaces, UTF-8)."""

    version: Identifier
    created_at: datetime
    base_sha256: Sha256
    recipe: Recipe
    artefacts: tuple[ArtefactRef, ...]
    run_key: Identifier
    sites: dict[str, SiteMetrics]
    """Hospital id → candidate on the site's held-out groups."""
    examples: dict[str, int]
    """Hospital id → training cells."""
    boxes: dict[str, int] = Field(default_factory=dict)
    """Hospital id → cells marked in the fields by which the finder learnt; empty: it was never trained."""
    finders: dict[str, FinderMetrics] = Field(default_factory=dict, exclude_if=lambda finders: not finders)
    """Hospital id → the finder beside plain proposals there. Left out where empty: older cards were signed without."""
    cells: dict[str, dict[CellClass, Count]] = Field(default_factory=dict, exclude_if=lambda cells: not cells)
    """Hospital id → labelled training cells of each of the recipe's classes, as its census told at the end of the run;
    a hospital whose policy keeps its counts is absent. Left out where empty: older cards were signed without."""
    calibration: CalibrationSummary
    """Defaults for a hospital that has no validation data of its own."""
    privacy: ModelPrivacy | None = Field(default=None, exclude_if=lambda privacy: privacy is None)
    """None: no noise was added. Left out then: older cards were signed without."""
    parent: Identifier | None = None
    untrained_classes: tuple[CellClass, ...] = (CellClass.BLAST,)
    licence: str = "Apache-2.0 (weights derive from ImageNet-pretrained EfficientNet-Lite)"
    intended_use: str = "Research use: pre-sorting of white cells for a hematologist's reading. Not a medical device."
    synthetic: bool = False

    @property
    def finds(self) -> bool:
        """Whether the finder was trained and no hospital found it worse than plain proposals: its word counts then."""
        return sum(self.boxes.values()) > 0 and not any(found.worse for found in self.finders.values())

    @property
    def unseen_hospital(self) -> str:
        """What a hospital without labels gets of this version, in words; see docs/personalisation.md."""
        network = "The shared network and head as they are signed"
        if self.recipe.local_normalisation:
            network += (
                ", with the average of the normalisation that each taking part keeps as its own: none of them trained"
                " with that average, so the figures of the candidate, not of each site's own, are those to go by"
            )
        return f"{network}; temperature, prediction sets and dye as the median of the hospitals that took part."


class SignedModelCard(Contract):
    """A card with the release key's Ed25519 signature (base64) over the card's canonical bytes."""

    card: ModelCard
    signature: str
    key_id: Identifier = Field(description="Fingerprint of the release public key.")
