"""Tries a model on the site's own validation cells and fits the site's calibration, in a process of its own.

``python -m client_node.models.trial --home H --version V [--against W]`` prints one `Trial` as JSON.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis.model import LoadedModel, load_model
from client_node.datasets.catalogue import Catalogue, LabelledCell
from client_node.home import NodeHome
from client_node.models.contract import Trial
from client_node.policy import load_policy
from shared.contracts.errors import DataInvalidError, HematovisionError
from shared.crypto.pki import write_private
from shared.vision import backbones, calibration, preprocessing

_BATCH: Final = 32
_MOST_CELLS: Final = 1500
_LEAST_TO_FIT: Final = 20
Floats = NDArray[np.float32]


def run_trial(home: NodeHome, version: str, against: str | None) -> Trial:
    """Evaluate ``version`` (and ``against``) on the validation split; write ``adapter.json`` of ``version``.

    The calibration is fitted only where the site has enough cells; else the card's own stays in use.
    """
    candidate = load_model(home.model(version))
    cells = _cells(home, candidate)
    if not cells:
        return Trial(n=0, accuracy=None, current_accuracy=None, fitted=False)
    logits, features, labels = _outputs(candidate, cells)
    fitted = len(labels) >= _LEAST_TO_FIT
    if fitted:
        adapter = calibration.fit_adapter(logits, features, labels)
        write_private(home.model(version) / "adapter.json", adapter.model_dump_json().encode())
    accuracy = float((logits.argmax(axis=1) == labels).mean()) if len(labels) else None
    return Trial(n=len(labels), accuracy=accuracy, current_accuracy=_accuracy(home, against), fitted=fitted)


def _accuracy(home: NodeHome, version: str | None) -> float | None:
    if version is None:
        return None
    try:
        model = load_model(home.model(version))
    except HematovisionError:
        return None  # a damaged current model is no reason to refuse a sound one
    logits, _, labels = _outputs(model, _cells(home, model))
    return float((logits.argmax(axis=1) == labels).mean()) if len(labels) else None


def _cells(home: NodeHome, model: LoadedModel) -> list[LabelledCell]:
    policy = load_policy(home)
    cells = Catalogue(home.path).cells(split="val", classes=model.classes)
    return [cell for cell in cells if policy.allows_source(cell.source)][:_MOST_CELLS]


def _outputs(model: LoadedModel, cells: list[LabelledCell]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return logits (n, classes), features (n, width) and labels (n); a cell whose image is damaged is left out."""
    entry, size = backbones.get(model.card.recipe.backbone), model.card.recipe.input_size
    logits, features, labels = [], [], []
    for begin in range(0, len(cells), _BATCH):
        inputs, chunk = [], []
        for cell in cells[begin : begin + _BATCH]:
            try:
                crop = preprocessing.cell_crop(preprocessing.load_image(cell.path), cell.box)
            except DataInvalidError:
                continue
            inputs.append(preprocessing.to_input(crop, size, entry.mean, entry.std))
            chunk.append(model.classes.index(cell.cls))
        if inputs:
            out, feature = model.engine.run(np.stack(inputs))
            logits.append(out)
            features.append(feature)
            labels += chunk
    if not labels:
        raise DataInvalidError("None of the validation images can be read: import them again.")
    return np.concatenate(logits), np.concatenate(features), np.asarray(labels, dtype=np.int64)


def main(arguments: list[str] | None = None) -> int:
    """Run a trial; the parent reads one line of JSON, or an error's sentence and exit status."""
    parser = argparse.ArgumentParser(prog="client_node.models.trial")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--against")
    options = parser.parse_args(arguments)
    try:
        trial = run_trial(NodeHome(options.home), options.version, options.against)
    except HematovisionError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    sys.stdout.write(trial.model_dump_json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
