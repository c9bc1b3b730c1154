"""Makes a model version of a run's tensors: the files in the object store and the signed card that pins them."""

import math
import secrets
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from itertools import accumulate
from pathlib import Path

from server import vision
from server.federation.strategies.tensors import Tensors, stored_tensors
from server.models.base import utc_now
from server.registry.known import known_laboratories
from server.runtime import Runtime
from shared.contracts.canonical import canonical_bytes
from shared.contracts.laboratory import KNOWN_FILE, Dye, Triple
from shared.contracts.model_card import ArtefactRef, ModelCard, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import ModelPrivacy
from shared.contracts.training import (
    CalibrationSummary,
    EvaluateReply,
    Recipe,
)
from shared.vision import backbones

DELTA = "delta.safetensors"
ONNX = "model.onnx"


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
    cells: Mapping[str, Mapping[CellClass, int]] = field(default_factory=dict)
    """Hospital id → its labelled training cells by class."""
    privacy: ModelPrivacy | None = None


def artefact_key(version: str, name: str) -> str:
    """Return where a file of a version lies in the object store."""
    return f"models/{version}/{name}"


def new_version(now: datetime) -> str:
    """Return a fresh version name that sorts by time, e.g. ``hv-20261123-1405-ab12``."""
    return f"hv-{now:%Y%m%d-%H%M}-{secrets.token_hex(2)}"


def licence_of(backbone: str) -> str:
    """Return what a card says of its licence: that of the weights which the model began with."""
    entry = backbones.get(backbone)
    return f"{entry.licence} (weights derive from those of {entry.name}, pretrained on ImageNet)"


def build(runtime: Runtime, candidate: Candidate) -> SignedModelCard:
    """Export, store and sign a candidate."""
    now = utc_now()
    version = new_version(now)
    delta = stored_tensors(candidate.tensors)
    files = {DELTA: delta, ONNX: _onnx(candidate.recipe, delta), **_known(candidate)}
    for name, content in files.items():
        runtime.store.put(artefact_key(version, name), content, if_absent=True)
    card = ModelCard(
        version=version,
        created_at=now,
        base_sha256=candidate.base_sha256,
        recipe=candidate.recipe,
        licence=licence_of(candidate.recipe.backbone),
        artefacts=tuple(
            ArtefactRef(name=name, sha256=sha256(content).hexdigest(), size=len(content))
            for name, content in files.items()
        ),
        run_key=candidate.run_id,
        sites={hospital: reply.candidate for hospital, reply in candidate.evaluations.items()},
        examples=dict(candidate.examples),
        cells={hospital: dict(counts) for hospital, counts in candidate.cells.items()},
        boxes={hospital: reply.boxes for hospital, reply in candidate.evaluations.items() if reply.boxes},
        finders={hospital: reply.finder for hospital, reply in candidate.evaluations.items() if reply.finder},
        calibration=default_calibration(list(candidate.evaluations.values())),
        privacy=candidate.privacy,
        parent=candidate.parent,
        untrained_classes=() if CellClass.BLAST in candidate.recipe.classes else (CellClass.BLAST,),
        synthetic=runtime.settings.synthetic,
    )
    key = runtime.vault.release_key()
    return SignedModelCard(card=card, signature=key.sign(canonical_bytes(card)), key_id=key.public.key_id)


def _known(candidate: Candidate) -> dict[str, bytes]:
    """The file of the laboratories that the model knows; none where no hospital told of its own."""
    told = [reply.laboratory for reply in candidate.evaluations.values()]
    known = known_laboratories(told, features=backbones.get(candidate.recipe.backbone).feature_size)
    return {KNOWN_FILE: known.model_dump_json().encode()} if known.laboratories else {}


def default_calibration(replies: list[EvaluateReply]) -> CalibrationSummary:
    """Return what a hospital without validation data starts with: the medians of the sites' own calibrations."""
    return CalibrationSummary(
        temperature=statistics.median(reply.calibration.temperature for reply in replies),
        conformal_quantile=statistics.median(reply.calibration.conformal_quantile for reply in replies),
        quantiles=_quantiles([reply.calibration for reply in replies]),
        density=_density([reply.calibration.density for reply in replies if reply.calibration.density is not None]),
        dye=_dye([reply.calibration.dye for reply in replies if reply.calibration.dye is not None]),
    )


def _quantiles(sites: list[CalibrationSummary]) -> tuple[tuple[float, float], ...]:
    """The medians level by level, over the sites that reach it; never falling from one level to the next."""
    by_level: defaultdict[float, list[float]] = defaultdict(list)
    for site in sites:
        for level, value in site.quantiles:
            by_level[level].append(value)
    medians = {level: statistics.median(by_level[level]) for level in sorted(by_level)}
    return tuple(zip(medians, accumulate(medians.values(), max), strict=True))


def _dye(sites: list[Dye]) -> Dye | None:
    """The medians number by number; the dyes are brought to unit length again."""
    if not sites:
        return None
    both = [(site.stains, site.strengths) for site in sites if site.stains is not None and site.strengths is not None]
    stains = [_unit(_median([pair[0][number] for pair in both])) for number in range(2)] if both else []
    strengths = [statistics.median(pair[1][number] for pair in both) for number in range(2)] if both else []
    return Dye(
        lab_mean=_median([site.lab_mean for site in sites]),
        lab_deviation=_median([site.lab_deviation for site in sites]),
        stains=(stains[0], stains[1]) if stains else None,
        strengths=(strengths[0], strengths[1]) if strengths else None,
    )


def _median(triples: list[Triple]) -> Triple:
    first, second, third = (statistics.median(triple[place] for triple in triples) for place in range(3))
    return first, second, third


def _unit(triple: Triple) -> Triple:
    length = max(math.hypot(*triple), 1e-6)
    first, second, third = (min(1.0, value / length) for value in triple)
    return first, second, third


def _density(sites: list[Triple]) -> Triple | None:
    """The dye that the model knows: another hospital can bring its own near to it."""
    if not sites:
        return None
    return _median(sites)


def _onnx(recipe: Recipe, delta: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hematovision-export-") as folder:
        source, out = Path(folder) / DELTA, Path(folder) / ONNX
        source.write_bytes(delta)
        vision.export_onnx(recipe, source, out)
        return out.read_bytes()
