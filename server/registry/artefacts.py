"""Makes a model version of a run's tensors: the files in the object store and the signed card that pins them."""

import secrets
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from server import vision
from server.federation.strategies.tensors import Tensors, stored_tensors
from server.models.base import utc_now
from server.runtime import Runtime
from shared.contracts.canonical import canonical_bytes
from shared.contracts.model_card import ArtefactRef, ModelCard, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.training import CalibrationSummary, EvaluateReply, Recipe

DELTA = "delta.safetensors"
ONNX = "model.onnx"

Density = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a run has learnt, and how the hospitals found it."""

    run_id: str
    recipe: Recipe
    base_sha256: str
    tensors: Tensors
    evaluations: Mapping[str, EvaluateReply]
    examples: Mapping[str, int]
    parent: str | None


def artefact_key(version: str, name: str) -> str:
    """Return where a file of a version lies in the object store."""
    return f"models/{version}/{name}"


def new_version(now: datetime) -> str:
    """Return a fresh version name that sorts by time, e.g. ``hv-20261123-1405-ab12``."""
    return f"hv-{now:%Y%m%d-%H%M}-{secrets.token_hex(2)}"


def build(runtime: Runtime, candidate: Candidate) -> SignedModelCard:
    """Export, store and sign a candidate."""
    now = utc_now()
    version = new_version(now)
    delta = stored_tensors(candidate.tensors)
    files = {DELTA: delta, ONNX: _onnx(candidate.recipe, delta)}
    for name, content in files.items():
        runtime.store.put(artefact_key(version, name), content, if_absent=True)
    card = ModelCard(
        version=version,
        created_at=now,
        base_sha256=candidate.base_sha256,
        recipe=candidate.recipe,
        artefacts=tuple(
            ArtefactRef(name=name, sha256=sha256(content).hexdigest(), size=len(content))
            for name, content in files.items()
        ),
        run_key=candidate.run_id,
        sites={hospital: reply.candidate for hospital, reply in candidate.evaluations.items()},
        examples=dict(candidate.examples),
        boxes={hospital: reply.boxes for hospital, reply in candidate.evaluations.items() if reply.boxes},
        calibration=default_calibration(list(candidate.evaluations.values())),
        parent=candidate.parent,
        untrained_classes=() if CellClass.BLAST in candidate.recipe.classes else (CellClass.BLAST,),
        synthetic=runtime.settings.synthetic,
    )
    key = runtime.vault.release_key()
    return SignedModelCard(card=card, signature=key.sign(canonical_bytes(card)), key_id=key.public.key_id)


def default_calibration(replies: list[EvaluateReply]) -> CalibrationSummary:
    """Return what a hospital without validation data starts with: the medians of the sites' own calibrations."""
    return CalibrationSummary(
        temperature=statistics.median(reply.calibration.temperature for reply in replies),
        conformal_quantile=statistics.median(reply.calibration.conformal_quantile for reply in replies),
        density=_density([reply.calibration.density for reply in replies if reply.calibration.density is not None]),
    )


def _density(sites: list[Density]) -> Density | None:
    """The dye that the model knows: another hospital can bring its own near to it."""
    if not sites:
        return None
    red, green, blue = (statistics.median(site[channel] for site in sites) for channel in range(3))
    return red, green, blue


def _onnx(recipe: Recipe, delta: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hematovision-export-") as folder:
        source, out = Path(folder) / DELTA, Path(folder) / ONNX
        source.write_bytes(delta)
        vision.export_onnx(recipe, source, out)
        return out.read_bytes()
