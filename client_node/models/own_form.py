"""A version with the site's own normalisation: made beside the signed files, used where the trial finds it better.

Making one needs torch and the base weights, which a training node has. An inference-only node never takes part in a
run, keeps no normalisation, and runs the shared one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from safetensors.numpy import load, save

from client_node.analysis.model import LoadedModel
from client_node.home import NodeHome
from client_node.models.normalisation import OwnNormalisation
from shared.contracts.errors import DependencyMissingError, HematovisionError, ModelInvalidError
from shared.crypto.pki import write_private
from shared.space import space_guard
from shared.vision.engine import OnnxEngine
from shared.vision.precision import (
    DELTA_FILE,
    ONNX_FILE,
    OWN_DELTA_FILE,
    OWN_FACTS_FILE,
    OWN_ONNX_FILE,
    OwnFacts,
    sha256_of,
)

_TRYING: Final = ".trying-own"

log = structlog.get_logger(__name__)


@contextmanager
def own_form(home: NodeHome, model: LoadedModel) -> Iterator[LoadedModel | None]:
    """Make the form of ``model`` with the site's own normalisation, for as long as the trial lasts.

    None where the recipe asks for none, the site keeps none, or it cannot be made here; the log says why.
    """
    folder = home.model(model.card.version)
    trying = folder / _TRYING
    try:
        made = _made(home, model, folder, trying) if model.card.recipe.local_normalisation else None
    except HematovisionError as error:
        log.warning("model.no_own_normalisation", version=model.card.version, reason=error.message)
        made = None
    try:
        yield made
    finally:
        for name in (OWN_ONNX_FILE, OWN_DELTA_FILE):
            (trying / name).unlink(missing_ok=True)
        if trying.is_dir():
            trying.rmdir()


def _made(home: NodeHome, model: LoadedModel, folder: Path, trying: Path) -> LoadedModel | None:
    card = model.card
    own = OwnNormalisation(home.path, card.recipe, card.base_sha256).after(card.run_key)
    if own is None:
        return None
    tensors = load((folder / DELTA_FILE).read_bytes()) if (folder / DELTA_FILE).is_file() else {}
    if not own.keys() <= tensors.keys() or not (folder / ONNX_FILE).is_file():
        raise ModelInvalidError("The site's own normalisation does not fit the model.")
    with space_guard(folder):
        trying.mkdir(mode=0o700, exist_ok=True)
        (trying / OWN_DELTA_FILE).write_bytes(save({**tensors, **own}))
        _export(model, trying)
    return replace(model, engine=OnnxEngine(trying / OWN_ONNX_FILE, len(model.classes)))


def _export(model: LoadedModel, trying: Path) -> None:
    try:
        from shared.vision.export import export_onnx  # at use: an inference-only node has no torch
        from shared.vision.torch_engine import load_model
    except ImportError as error:
        raise DependencyMissingError(
            "A site's own normalisation needs torch here: install hematovision with its `node` extra."
        ) from error
    recipe = model.card.recipe
    export_onnx(load_model(trying / OWN_DELTA_FILE, recipe), recipe.input_size, trying / OWN_ONNX_FILE)


def keep_own_form(folder: Path) -> None:
    """Let the form that `own_form` has made run; `own.json` is written last, and only with it the form counts."""
    drop_own_form(folder)
    trying = folder / _TRYING
    with space_guard(folder):
        facts = OwnFacts(
            source_sha256=sha256_of(folder / ONNX_FILE),
            onnx_sha256=sha256_of(trying / OWN_ONNX_FILE),
            delta_sha256=sha256_of(trying / OWN_DELTA_FILE),
            made_at=datetime.now(UTC),
        )
        for name in (OWN_ONNX_FILE, OWN_DELTA_FILE):
            (trying / name).replace(folder / name)
        write_private(folder / OWN_FACTS_FILE, facts.model_dump_json().encode())


def drop_own_form(folder: Path) -> None:
    """Let the signed form run."""
    for name in (OWN_FACTS_FILE, OWN_ONNX_FILE, OWN_DELTA_FILE):
        (folder / name).unlink(missing_ok=True)
