"""When a site gets a head of its own, and what its calibration makes of it."""

from pathlib import Path

import numpy as np

from client_node.datasets.labelled import LabelledCell, Origin
from client_node.datasets.splits import Split
from client_node.models.personal import Form, Kept, Seen, choose, own_head, seen
from shared.contracts.ontology import CellClass
from shared.vision import calibration
from tests.shared.vision.test_site_head import accuracy, world

CLASSES = (CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.MONOCYTE, CellClass.EOSINOPHIL)


def site(count: int, *, moved: float, seed: int) -> Seen:
    logits, features, labels = world(count, moved=moved, seed=seed)
    cells = [
        LabelledCell(
            hash=f"{seed:02d}{number:062d}",
            path=Path("x.png"),
            box=None,
            cls=CLASSES[label],
            source="s",
            group=str(number),
            origin=Origin.IMPORT,
            site="s",
            split=Split.VAL,
        )
        for number, label in enumerate(labels)
    ]
    return seen(cells, logits, features, CLASSES)


def test_a_misread_site_gets_a_head_and_its_calibration_is_of_the_logits_with_it() -> None:
    taught, validation, later = (site(count, moved=12.0, seed=seed) for count, seed in ((80, 0), (60, 1), (300, 2)))
    head = own_head(taught, validation)
    assert head is not None
    adapter = calibration.fit_adapter(validation.logits, validation.features, validation.labels, head=head)
    again = calibration.Adapter.model_validate_json(adapter.model_dump_json())
    found = calibration.apply(again, later.logits, later.features)
    assert accuracy(later.logits, later.labels) < 0.6
    assert accuracy(found.probabilities, later.labels) > 0.9
    assert adapter.right is not None
    assert adapter.right > 50
    assert found.sets[np.arange(300), later.labels].mean() > 0.9


def test_a_head_that_validation_cells_do_not_confirm_is_dropped() -> None:
    assert own_head(site(80, moved=12.0, seed=0), site(60, moved=0.0, seed=1)) is None


def test_a_site_that_is_read_well_or_holds_no_validation_cells_gets_none() -> None:
    assert own_head(site(80, moved=0.0, seed=0), site(60, moved=0.0, seed=1)) is None
    assert own_head(site(80, moved=12.0, seed=0), site(0, moved=12.0, seed=1)) is None


def test_the_best_of_shared_and_own_on_validation_cells_is_kept() -> None:
    bad, good, fair = (Form(site(80, moved=moved, seed=0), site(60, moved=moved, seed=1)) for moved in (12.0, 0.0, 1.0))
    assert choose(good) == Kept(False, None)
    assert choose(bad).head is not None  # the network as it came, its head mended
    assert choose(bad, good) == Kept(True, None)
    assert choose(good, bad) == choose(good, fair) == choose(good, good) == Kept(False, None)


def test_without_validation_cells_nothing_is_the_sites_own() -> None:
    nothing = Form(site(80, moved=12.0, seed=0), site(0, moved=12.0, seed=1))
    assert choose(nothing, nothing) == Kept(False, None)
