"""What is made of a finder's outputs."""

import numpy as np
import pytest

from client_node.analysis.detection.accept import accept
from client_node.analysis.detection.proposals import Box
from shared.contracts.objects import ObjectKind
from shared.vision.boxes import KINDS, OUTPUTS, decode, encode

SEEN: Box = (100, 100, 200, 200)


def said(kind: ObjectKind, sure: float, cell: Box, seen: Box) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    row = np.zeros(OUTPUTS, np.float32)
    row[KINDS.index(kind)] = sure
    row[len(KINDS) :] = encode(cell, seen)
    return row


@pytest.mark.parametrize("cell", [SEEN, (110, 90, 190, 230), (150, 150, 170, 170)])
def test_boxes_come_back_as_they_were_encoded(cell: Box) -> None:
    assert decode(encode(cell, SEEN), SEEN, 640, 480) == cell


def test_a_decoded_box_is_cut_at_the_fields_edge_and_never_empty() -> None:
    assert decode(encode((-40, 10, 60, 90), (0, 0, 90, 90)), (0, 0, 90, 90), 640, 480) == (0, 10, 60, 90)
    wild = np.full(4, 1e9, np.float32)
    box = decode(wild, SEEN, 640, 480)
    assert box[0] < box[2]
    assert box[1] < box[3]


def test_two_lobes_that_the_finder_takes_for_one_cell_become_one() -> None:
    whole, left, right = (100, 100, 220, 200), (100, 110, 160, 190), (160, 110, 220, 190)
    objects = np.stack([said(ObjectKind.CELL, 4.0, whole, left), said(ObjectKind.CELL, 5.0, whole, right)])
    (cell,) = accept([left, right], objects, 640, 480).cells
    assert cell.proposal == 1


def test_others_are_counted_by_kind_and_neighbours_stay_apart() -> None:
    boxes: list[Box] = [(0, 50, 80, 130), (85, 50, 165, 130), (300, 300, 330, 330)]
    rows = [said(ObjectKind.CELL, 4.0, box, box) for box in boxes[:2]]
    judged = accept(boxes, np.stack([*rows, said(ObjectKind.PLATELET, 3.0, boxes[2], boxes[2])]), 640, 480)
    assert [cell.box for cell in judged.cells] == boxes[:2]
    assert [cell.edge for cell in judged.cells] == [True, False]
    assert judged.rejected == {ObjectKind.PLATELET: 1}


@pytest.mark.parametrize("next_guess", [ObjectKind.PLATELET, ObjectKind.SMUDGE, ObjectKind.ARTEFACT])
def test_what_is_far_too_small_for_its_field_is_booked_as_the_finders_next_guess(next_guess: ObjectKind) -> None:
    boxes: list[Box] = [(100, 100, 200, 200), (300, 300, 334, 330)]
    rows = [said(ObjectKind.CELL, 4.0, box, box) for box in boxes]
    rows[1][KINDS.index(next_guess)] = 2.0
    judged = accept(boxes, np.stack(rows), 640, 480)
    assert [cell.box for cell in judged.cells] == boxes[:1]
    assert judged.rejected == {next_guess: 1}


def test_a_cell_that_the_edge_cuts_is_narrow_and_not_too_small() -> None:
    boxes: list[Box] = [(100, 100, 200, 200), (0, 300, 11, 390)]
    judged = accept(boxes, np.stack([said(ObjectKind.CELL, 4.0, box, box) for box in boxes]), 640, 480)
    assert [cell.edge for cell in judged.cells] == [False, True]
    assert judged.rejected == {}


def test_outputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        accept([SEEN], np.full((1, OUTPUTS), np.nan, np.float32), 640, 480)
