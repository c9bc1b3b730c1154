"""The models of the bench and their recipes, whole and quick, and the facts that they depend on."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.labelled import LabelledCell, as_predicted
from client_node.training import augment
from shared.contracts.ontology import CellClass
from shared.contracts.training import Augmentation, Recipe
from shared.vision import preprocessing
from tests.bench.model.say import say
from tests.bench.model.steps import Json, Steps

Labels = NDArray[np.int64]

CLASSES: Final = (
    CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.EOSINOPHIL, CellClass.BASOPHIL,
    CellClass.IMMATURE_GRANULOCYTE, CellClass.ERYTHROBLAST, CellClass.PLATELET,
)  # fmt: skip
RECIPE: Final = Recipe(
    classes=CLASSES, frozen_stages=0, input_size=144, local_epochs=12, learning_rate=4e-4, head_learning_rate=2e-3,
    ema=0.995, batch_size=32,
)  # fmt: skip
FEDERATED: Final = Recipe(classes=CLASSES)
"""What hospitals run unless a coordinator says otherwise."""
MOST_IMAGES: Final = 2300
_QUICK_EPOCHS: Final = {"pbc": 4, "bccd": 4}
_FOLD_EPOCHS: Final = {True: 2, False: 8}
_IMPORT: Final = 2
"""Raise it when the importers keep more than they did."""
_TRAIN: Final = 1
"""Raise it when the same recipe would train otherwise."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A model of the bench."""

    name: str
    sources: tuple[str, ...]
    recipe: Recipe


def stages(*, quick: bool) -> dict[str, Stage]:
    """Return the models by name: one for both sources, one for each alone; in a whole run, others to compare with."""
    alone = {source: _epochs(RECIPE, _QUICK_EPOCHS[source] if quick else None) for source in ("pbc", "bccd")}
    mark = "-quick" if quick else ""
    found = [Stage("both", ("pbc", "bccd"), RECIPE)]
    found += [Stage(f"{source}{mark}", (source,), recipe) for source, recipe in alone.items()]
    if not quick:
        strong = RECIPE.model_copy(update={"augmentation": Augmentation.STRONG})
        found += [Stage(f"{source}-strong", (source,), strong) for source in ("pbc", "bccd")]
        found += [
            Stage(f"both-{size}", ("pbc", "bccd"), RECIPE.model_copy(update={"backbone": f"tf_efficientnet_{size}"}))
            for size in ("lite1", "lite2")
        ]
    return {stage.name.removesuffix("-quick"): stage for stage in found}


def fold_recipe(*, quick: bool) -> Recipe:
    """Return the short training on top of a model that knows the larger source alone.

    Epochs and looks of a whole run were chosen on folds' train and validation groups; a quick run has fewer for time.
    """
    return _epochs(RECIPE, _FOLD_EPOCHS[quick]).model_copy(update={"augmentation": Augmentation.SUBTLE})


def _epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    return recipe if epochs is None else recipe.model_copy(update={"local_epochs": epochs})


def data_facts(data: Path) -> Json:
    """Return what everything here depends on: the label file, and how cells are imported and cut."""
    labels = sha256((data / "labels.csv").read_bytes()).hexdigest()
    return {"labels": labels, "import": _IMPORT, "preprocessing": preprocessing.VERSION}


def stage_facts(stage: Stage, data: Path) -> Json:
    """Return what a model depends on."""
    return {
        "name": stage.name, "sources": list(stage.sources), "recipe": stage.recipe.model_dump(mode="json"),
        "data": data_facts(data), "augment": augment.VERSION, "train": _TRAIN,
    }  # fmt: skip


def catalogue(steps: Steps, work: Path, data: Path) -> Path:
    """Import the real smears once into a home below ``work``; return the home."""
    facts = data_facts(data)
    home = work / f"home-{facts['labels'][:8]}-{_IMPORT}"

    def imported() -> Json:
        say(f"importing {data}")
        return import_source(home, data, "csv", labels=data / "labels.csv").imported

    steps.run(work / "pieces" / "import.json", facts, imported, again=not home.is_dir())
    return home


def cells_of(home: Path, split: str, source: str) -> list[LabelledCell]:
    """Return a source's labelled cells of a split whose class (or its parent) the models predict."""
    cells = Catalogue(home).cells(split=split)
    return [cell for cell in cells if cell.source == source and as_predicted(cell.cls, CLASSES)]


def positions(cells: Sequence[LabelledCell]) -> Labels:
    """Return the cells' positions in `CLASSES`."""
    return np.array([CLASSES.index(as_predicted(cell.cls, CLASSES) or cell.cls) for cell in cells], np.int64)
