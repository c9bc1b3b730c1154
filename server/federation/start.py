"""What a run starts from: the pretrained weights' trainable part, or the current model where it fits."""

import json
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import structlog
from sqlmodel import Session

import server.registry.service as registry
from server import vision
from server.federation import bases
from server.federation.strategies.tensors import Tensors, read_tensors
from server.registry.artefacts import DELTA, artefact_key
from server.runtime import Runtime
from shared.contracts.errors import HematovisionError
from shared.contracts.training import Recipe
from shared.storage import ObjectStore
from shared.vision import backbones

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """Tensors of round 0, the frozen base they apply to, and the model version they come from (None: pretrained)."""

    tensors: Tensors
    base_sha256: str
    parent: str | None


def start_tensors(runtime: Runtime, recipe: Recipe) -> Start:
    """Return the start of a run: the current model if base and shape agree, else pretrained.

    From then on the store has the whole base too, for nodes that lack it.
    """
    body, base_sha256 = _base(runtime.store, recipe)
    _offer(runtime.store, recipe, base_sha256)
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
    body, base_sha256 = _exported(store, recipe)
    store.put(body_key, body)
    store.put(facts_key, json.dumps({"base_sha256": base_sha256}).encode())
    return body, base_sha256


def _offer(store: ObjectStore, recipe: Recipe, base_sha256: str) -> None:
    """Keep the whole base where an earlier version did not; hospitals that have it train without, so a run goes on."""
    if bases.is_kept(store, base_sha256):
        return
    try:
        _, found = _exported(store, recipe)
    except HematovisionError as error:
        log.warning("federation.base_not_offered", base=base_sha256, code=error.code)
        return
    if found != base_sha256:
        log.warning("federation.base_not_offered", base=base_sha256, found=found)


def _exported(store: ObjectStore, recipe: Recipe) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory(prefix="hematovision-base-") as folder:
        out, whole = Path(folder) / "start.safetensors", Path(folder) / "base.safetensors"
        base_sha256 = vision.export_base(recipe, out, whole)
        bases.keep(store, base_sha256, whole)
        return out.read_bytes(), base_sha256
