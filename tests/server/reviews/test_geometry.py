"""Cells that a reader marks: added, split, merged; on record, encrypted, taken back, and on their way home."""

import io

import pytest
from PIL import Image
from sqlmodel import select

from server.cases import service as cases
from server.cases import viewing
from server.cases.schemas import CaseView
from server.models import AuditEntry, ChangeKind, Report
from server.reviews import geometry, service, steps, undoing
from server.reviews.schemas import ChangeResult, NewBox
from shared.contracts.errors import ConflictError, DataInvalidError, HematovisionError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.report import FeedbackLabel
from tests.reading import look_through, sign_input
from tests.server.conftest import Ward

NEW, OTHER = "r0123456789ab", "rba9876543210"
FREE = (200, 150, 240, 190)


@pytest.fixture
def claimed(ward: Ward) -> Ward:
    """Return the ward with its case claimed by the reader."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
    return ward


def _view(ward: Ward) -> CaseView:
    with ward.centre.runtime.database.session(read_only=True) as session:
        return cases.case_view(session, ward.reader, ward.case_id)


def _add(
    ward: Ward, box: tuple[int, int, int, int] = FREE, *, cell: str = NEW, key: str = "k1", field: int = 0
) -> ChangeResult:
    return geometry.add(
        ward.centre.runtime,
        ward.reader,
        ward.case_id,
        field=field,
        place=NewBox(cell_id=cell, box=box),
        label=CellClass.BLAST,
        idempotency_key=key,
    )


def _split(ward: Ward, cell: str = "c1", key: str = "s1") -> ChangeResult:
    places = (NewBox(cell_id=NEW, box=(30, 0, 44, 28)), NewBox(cell_id=OTHER, box=(44, 0, 58, 28)))
    return geometry.split(
        ward.centre.runtime, ward.reader, ward.case_id, cell_id=cell, places=places, idempotency_key=key
    )


def _merge(ward: Ward, cells: list[str], key: str = "m1") -> ChangeResult:
    return geometry.merge(
        ward.centre.runtime, ward.reader, ward.case_id, cell_ids=cells, new_id=NEW, idempotency_key=key
    )


def test_added_cell_counts_and_has_its_number_after_all_others(claimed: Ward) -> None:
    before = _view(claimed)
    result = _add(claimed)
    (cell,) = result.cells
    assert (cell.cell_id, cell.number, cell.field, cell.box) == (NEW, len(before.cells) + 1, 0, FREE)
    assert (cell.current_class, cell.added_by, cell.doubtful) == (CellClass.BLAST, "Dr. A. Reader", False)
    assert result.differential[CellClass.BLAST].count == 1
    assert _add(claimed) == result
    after = _view(claimed)
    assert {one.cell_id: one.number for one in after.cells} == {
        **{one.cell_id: one.number for one in before.cells},
        NEW: cell.number,
    }


def test_crop_is_cut_from_the_field_and_lies_encrypted(claimed: Ward) -> None:
    blob = _add(claimed).cells[0].blob
    store, runtime = claimed.centre.store, claimed.centre.runtime
    (place,) = [key for key in store.list(f"cases/a/{claimed.case_id}/") if key.endswith(blob)]
    assert b"PNG" not in store.get(place)
    with runtime.database.session(read_only=True) as session:
        content, media_type = viewing.blob(session, runtime, claimed.reader, claimed.case_id, blob)
        with pytest.raises(NotFoundError):
            viewing.blob(session, runtime, claimed.reader, claimed.case_id, "reader-0123456789abcdef.png")
    with Image.open(io.BytesIO(content)) as image:
        assert (image.size, media_type) == ((76, 76), "image/png")


def test_undo_of_an_added_cell_takes_it_out_and_redo_puts_it_back(claimed: Ward) -> None:
    before = _view(claimed).differential
    _add(claimed)
    with claimed.centre.runtime.database.session() as session:
        done = undoing.undo(session, claimed.reader, claimed.case_id, "u1")
        undone = steps.changed(session, claimed.reader, claimed.case_id, done)
    assert (undone.cells, undone.gone, undone.differential) == ([], [NEW], before)
    assert NEW not in {cell.cell_id for cell in _view(claimed).cells}
    with claimed.centre.runtime.database.session() as session:
        done = undoing.redo(session, claimed.reader, claimed.case_id, "r1")
        redone = steps.changed(session, claimed.reader, claimed.case_id, done)
    assert [(cell.cell_id, cell.current_class) for cell in redone.cells] == [(NEW, CellClass.BLAST)]
    with claimed.centre.runtime.database.session() as session:
        history = service.history(session, claimed.reader, claimed.case_id)
    assert [(line.kind, line.stands) for line in history] == [
        (ChangeKind.REDO, True),
        (ChangeKind.UNDO, False),
        (ChangeKind.ADDED, True),
    ]


def test_split_puts_two_of_the_class_in_place_of_one(claimed: Ward) -> None:
    before = _view(claimed).differential[CellClass.NEUTROPHIL].count
    result = _split(claimed)
    assert [(cell.cell_id, cell.current_class) for cell in result.cells] == [
        (NEW, CellClass.NEUTROPHIL),
        (OTHER, CellClass.NEUTROPHIL),
    ]
    assert (result.gone, result.differential[CellClass.NEUTROPHIL].count) == (["c1"], before + 1)
    with pytest.raises(NotFoundError, match="any more"):
        _split(claimed, key="s2")
    with claimed.centre.runtime.database.session() as session:
        done = undoing.undo(session, claimed.reader, claimed.case_id, "u1")
        back = steps.changed(session, claimed.reader, claimed.case_id, done)
    assert ([cell.cell_id for cell in back.cells], back.gone) == (["c1"], [NEW, OTHER])
    assert (back.cells[0].changed_by, back.cells[0].number) == (None, 1)


def test_merge_puts_one_box_around_all_with_the_class_of_the_first(claimed: Ward) -> None:
    result = _merge(claimed, ["c13", "c12"])
    (cell,) = result.cells
    # c12 and c13 lie side by side in the second row.
    assert (cell.box, cell.current_class, result.gone) == ((60, 30, 118, 58), CellClass.LYMPHOCYTE, ["c12", "c13"])
    with claimed.centre.runtime.database.session() as session:
        entry = session.exec(select(AuditEntry).where(AuditEntry.action == "cells.merged")).one()
    assert entry.data == {
        "field": 1,
        "labels": {NEW: "lymphocyte"},
        "boxes": {NEW: [60, 30, 118, 58]},
        "instead_of": ["c13", "c12"],
    }


@pytest.mark.parametrize(
    ("box", "field", "error"),
    [
        ((300, 200, 330, 230), 0, DataInvalidError),
        ((200, 150, 203, 190), 0, DataInvalidError),
        ((240, 150, 200, 190), 0, DataInvalidError),
        ((31, 1, 58, 28), 0, DataInvalidError),
        (FREE, 7, NotFoundError),
    ],
    ids=["outside", "a slip", "turned round", "a cell that is marked", "no such field"],
)
def test_bad_box_is_refused_and_nothing_is_stored(
    claimed: Ward, box: tuple[int, int, int, int], field: int, error: type[HematovisionError]
) -> None:
    before = sorted(claimed.centre.store.list("cases/"))
    with pytest.raises(error):
        _add(claimed, box, field=field)
    assert sorted(claimed.centre.store.list("cases/")) == before


def test_merge_of_one_cell_or_of_a_taken_id_is_refused(claimed: Ward) -> None:
    with pytest.raises(DataInvalidError):
        _merge(claimed, ["c1"])
    _add(claimed)
    with pytest.raises(ConflictError):
        _merge(claimed, ["c1", "c2"])


def test_marking_needs_the_claim(ward: Ward) -> None:
    with pytest.raises(ConflictError):
        _add(ward)


def test_marked_cells_go_home_with_their_place_and_others_as_before(claimed: Ward) -> None:
    _add(claimed)
    _merge_id = "raaaaaaaaaaaa"
    geometry.merge(
        claimed.centre.runtime,
        claimed.reader,
        claimed.case_id,
        cell_ids=["c1", "c2"],
        new_id=_merge_id,
        idempotency_key="m1",
    )
    with claimed.centre.runtime.database.session() as session:
        service.reclassify(
            session,
            claimed.reader,
            claimed.case_id,
            cell_ids=["c21"],
            label=CellClass.MYELOCYTE,
            idempotency_key="k2",
        )
        look_through(session, claimed.reader, claimed.case_id)
        signing = sign_input(session, claimed.reader, claimed.case_id, impression="Blasts.")
        report_id = service.sign(session, claimed.reader, claimed.centre.runtime, claimed.case_id, signing)
    with claimed.centre.runtime.database.session(read_only=True) as session:
        feedback = {line["cell_id"]: line for line in session.get_one(Report, report_id).feedback}
    assert set(feedback) == {NEW, _merge_id, "c21"}
    assert {"field", "box", "instead_of"}.isdisjoint(feedback["c21"])
    assert (feedback[NEW]["field"], feedback[NEW]["box"]) == (0, list(FREE))
    assert feedback[_merge_id]["instead_of"] == ["c1", "c2"]
    assert FeedbackLabel.model_validate(feedback[NEW]).model_dump(mode="json") == feedback[NEW]
