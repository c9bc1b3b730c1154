"""The cells of a field, with and without a trained finder."""

from pathlib import Path

import numpy as np

from client_node.analysis.detection import detect_white_cells, propose
from client_node.analysis.fields import find_cells
from client_node.analysis.model import load_model
from shared.contracts.objects import ObjectKind
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import draw_field
from tests.client_node.analysis.models import make_model

N, E = CellClass.NEUTROPHIL, CellClass.EOSINOPHIL
FIELD, _ = draw_field(0, [(N, 150, 120), (E, 400, 200), (N, 8, 250)])


def test_without_a_trained_finder_every_strict_proposal_is_a_cell_to_be_read(tmp_path: Path) -> None:
    found = find_cells(load_model(make_model(tmp_path)), FIELD)
    assert [cell.box for cell in found.cells] == detect_white_cells(FIELD)
    assert {cell.reading for cell in found.cells} == {None}
    assert [cell.edge for cell in found.cells].count(True) == 1
    assert found.rejected == {}


def test_a_trained_finder_reads_what_it_accepts_in_the_same_look(tmp_path: Path) -> None:
    found = find_cells(load_model(make_model(tmp_path, finds=True)), FIELD)
    assert len(found.cells) == 3
    assert all(cell.reading is not None for cell in found.cells if not cell.edge)
    generous = [one.box for one in propose(FIELD, generous=True)]
    inner = [cell.box for cell in found.cells if not cell.edge]
    squares = {max(box[2] - box[0], box[3] - box[1]) for box in generous}
    assert all(max(box[2] - box[0], box[3] - box[1]) in squares for box in inner)


def test_what_a_trained_finder_rejects_is_counted_by_kind(tmp_path: Path) -> None:
    found = find_cells(load_model(make_model(tmp_path, finds=True, kind=ObjectKind.PLATELET)), FIELD)
    assert found.cells == ()
    assert found.rejected == {ObjectKind.PLATELET: len(propose(FIELD, generous=True))}


def test_an_empty_field_has_no_cells(tmp_path: Path) -> None:
    glass = np.full((480, 640, 3), 235, np.uint8)
    assert find_cells(load_model(make_model(tmp_path, finds=True)), glass).cells == ()
