"""Whether a site does better without the averaged finder: asked of fields whose white cells are all marked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client_node.analysis.detection.compare import compare, paired
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Kind, LabelledField, MarkedObject, NewItem
from client_node.datasets.splits import Split
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass
from shared.contracts.training import FinderMetrics
from shared.vision.boxes import KINDS, OUTPUTS
from shared.vision.preprocessing import BOX_MARGIN, Pixels
from tests.client_node.analysis.factories import draw_field, save

SPOTS = [(CellClass.NEUTROPHIL, 150, 120), (CellClass.EOSINOPHIL, 400, 200)]


def add_fields(home: Path, count: int, *, complete: bool = True, split: Split = Split.VAL) -> None:
    """Put drawn fields of two white cells each into a catalogue."""
    with Catalogue(home).writing() as writer:
        for number in range(count):
            image, boxes = draw_field(0, SPOTS, seed=number)
            stored = writer.put_image(save(home / "drawn" / f"{number}.png", image).read_bytes())
            writer.add([NewItem(stored.sha256, Kind.FIELD, None, None, "painted", "s", f"f{number}", split)])
            writer.mark(stored.sha256, [MarkedObject(box, ObjectKind.CELL) for box in boxes])
            if complete:
                writer.complete(stored.sha256)


def says(kind: ObjectKind) -> NDArray[np.float32]:
    """What a finder says that takes every place for ``kind``, lying where the place was cut for."""
    found = np.zeros(OUTPUTS, np.float32)
    found[KINDS.index(kind)] = 5.0
    found[len(KINDS) :] = (0.0, 0.0, -np.log(BOX_MARGIN), -np.log(BOX_MARGIN))
    return found


def test_a_finder_that_rejects_everything_is_worse_than_proposals(tmp_path: Path) -> None:
    add_fields(tmp_path, 12)
    fields = Catalogue(tmp_path).fields(split="val")

    def rejects(crops: Sequence[Pixels]) -> NDArray[np.float32]:
        return np.tile(says(ObjectKind.ARTEFACT), (len(crops), 1))

    def takes_all(crops: Sequence[Pixels]) -> NDArray[np.float32]:
        return np.tile(says(ObjectKind.CELL), (len(crops), 1))

    bad = compare(fields, rejects, pause=lambda: None)
    good = compare(fields, takes_all, pause=lambda: None)
    assert bad is not None
    assert good is not None
    assert (bad.fields, bad.cells, bad.found, bad.extra) == (12, 24, 0, 0)
    assert bad.plain_found == good.plain_found == good.found == 24
    assert (bad.worse, good.worse) == (True, False)


def test_fields_that_are_marked_only_partly_or_few_cells_tell_nothing(tmp_path: Path) -> None:
    add_fields(tmp_path, 2, complete=False)
    fields: list[LabelledField] = Catalogue(tmp_path).fields(split="val")
    assert compare(fields, lambda crops: np.zeros((len(crops), OUTPUTS), np.float32), pause=lambda: None) is None
    few = FinderMetrics(fields=2, cells=4, found=0, extra=0, plain_found=4, plain_extra=0)
    assert (few.judges, few.worse) == (False, False)


@pytest.mark.parametrize(
    ("found", "extra", "worse"),
    [(98, 2, False), (95, 0, False), (94, 0, True), (100, 40, True), (100, 12, False)],
)
def test_worse_is_to_miss_more_or_to_do_worse_in_all(found: int, extra: int, *, worse: bool) -> None:
    seen = FinderMetrics(fields=9, cells=100, found=found, extra=extra, plain_found=100, plain_extra=10)
    assert seen.worse is worse


def test_a_box_answers_for_one_cell_and_a_cell_for_one_box() -> None:
    cells = [(0, 0, 100, 100), (100, 0, 200, 100)]
    assert paired(cells, [(10, 10, 90, 90), (20, 20, 95, 95), (105, 5, 195, 95)]) == 2
    assert paired(cells, [(0, 0, 220, 100)]) == 1
    assert paired(cells, []) == paired([], cells) == 0
