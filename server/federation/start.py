"""What a run starts from: the pretrained weights' trainable part, or the current model where it fits."""

import json
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sqlmodel import Session

import server.registry.service as registry
from server import vision
from server.federation.strategies.tensors import Tensors, read_tensors
from server.registry.artefacts import DELTA, artefact_key
from server.runtime import Runtime
from shared.contracts.training import Recipe
from shared.storage import ObjectStore
from shared.vision import backbones


@dataclass(frozen=True, slots=True)
class Start:
    """Tensors of round 0, the frozen base they apply to, and the model version they come from (None: pretrained)."""

    tensors: Tensors
    base_sha256: str
    parent: str | None


def start_tensors(runtime: Runtime, recipe: Recipe) -> Start:
    """Return the start of a run: the current model if base and shape agree, else pretrained."""
    body, base_sha256 = _base(runtime.store, recipe)
    with runtime.database.session(read_only=True) as session:
        parent = _fitting_parent(session, recipe, base_sha256)
    if parent is not None:
        body = runtime.store.get(artefact_key(parent, DELTA))
    return Start(read_tensors(body), base_sha256, parent)


def base_tensors(store: ObjectStore, recipe: Recipe) -> tuple[Tensors, str]:
    """Return a fresh model's tensors that learn, and the SHA-256 of the pretrained base that they are of."""
    body, base_sha256 = _base(store, recipe)
    return read_tensors(body), base_sha256


def _fitting_parent(session: Session, recipe: Recipe, base_sha256: str) -> str | None:
    signed = registry.current(session)
    if signed is None or signed.card.base_sha256 != base_sha256:
        return None
    return signed.card.version if fits(signed.card.recipe, recipe) else None


def fits(used: Recipe, recipe: Recipe) -> bool:
    """Whether the tensors of a model that was trained by ``used`` can start a run of ``recipe``."""
    if (used.backbone, used.classes, used.input_size) != (recipe.backbone, recipe.classes, recipe.input_size):
        return False
    usual = backbones.get(recipe.backbone).trunk_blocks
    return _frozen(used, usual) == _frozen(recipe, usual)


def _frozen(recipe: Recipe, usual: int) -> int:
    return usual if recipe.frozen_stages is None else recipe.frozen_stages


def base_keys(recipe: Recipe) -> tuple[str, str]:
    """Return where the store keeps a recipe's pretrained tensors, and what they are of."""
    facts = [recipe.backbone, [str(cls) for cls in recipe.classes], recipe.frozen_stages]
    name = sha256(json.dumps(facts).encode()).hexdigest()[:24]
    return f"federation/base/{name}/tensors.safetensors", f"federation/base/{name}/facts.json"


def _base(store: ObjectStore, recipe: Recipe) -> tuple[bytes, str]:
    """Return the pretrained trainable tensors and the base's hash; made once for each backbone, cut and class list."""
    body_key, facts_key = base_keys(recipe)
    if store.head(facts_key) is not None:
        return store.get(body_key), str(json.loads(store.get(facts_key))["base_sha256"])
    with tempfile.TemporaryDirectory(prefix="hematovision-base-") as folder:
        out = Path(folder) / "base.safetensors"
        base_sha256 = vision.export_base(recipe, out)
        body = out.read_bytes()
    store.put(body_key, body)
    store.put(facts_key, json.dumps({"base_sha256": base_sha256}).encode())
    return body, base_sha256
