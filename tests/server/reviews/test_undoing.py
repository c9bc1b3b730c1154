"""Taking back and doing again."""

import pytest
from sqlmodel import select

from server.accounts.schemas import Principal
from server.cases import service as cases
from server.models import AuditEntry, ChangeKind
from server.reviews import service, steps, undoing
from server.reviews.schemas import ChangeResult
from shared.contracts.errors import ConflictError
from shared.contracts.ontology import CellClass
from tests.server.conftest import Ward

IG = "c21"


@pytest.fixture
def claimed(ward: Ward) -> Ward:
    """Return the ward with its case claimed by the reader."""
    with ward.centre.runtime.database.session() as session:
        cases.claim(session, ward.reader, ward.case_id)
    return ward


def _change(ward: Ward, cells: list[str], label: CellClass, key: str, *, who: Principal | None = None) -> ChangeResult:
    reader = who or ward.reader
    with ward.centre.runtime.database.session() as session:
        done = service.reclassify(session, reader, ward.case_id, cell_ids=cells, label=label, idempotency_key=key)
        return steps.changed(session, reader, ward.case_id, done)


def _undo(ward: Ward, key: str) -> ChangeResult:
    with ward.centre.runtime.database.session() as session:
        return steps.changed(session, ward.reader, ward.case_id, undoing.undo(session, ward.reader, ward.case_id, key))


def _redo(ward: Ward, key: str) -> ChangeResult:
    with ward.centre.runtime.database.session() as session:
        return steps.changed(session, ward.reader, ward.case_id, undoing.redo(session, ward.reader, ward.case_id, key))


def _labels(result: ChangeResult) -> dict[str, CellClass]:
    return {cell.cell_id: cell.current_class for cell in result.cells}


def test_undo_takes_back_whole_changes_newest_first(claimed: Ward) -> None:
    _change(claimed, [IG, "c1"], CellClass.BLAST, "k1")
    _change(claimed, [IG], CellClass.MYELOCYTE, "k2")
    second = _undo(claimed, "u1")
    assert [(cell.cell_id, cell.current_class, cell.changed_by) for cell in second.cells] == [
        (IG, CellClass.BLAST, "Dr. A. Reader")
    ]
    assert _undo(claimed, "u1") == second
    first = _undo(claimed, "u2")
    assert {cell.cell_id: (cell.current_class, cell.changed_by) for cell in first.cells} == {
        IG: (CellClass.IMMATURE_GRANULOCYTE, None),
        "c1": (CellClass.NEUTROPHIL, None),
    }
    assert first.changes == 0
    with pytest.raises(ConflictError):
        _undo(claimed, "u3")
    with claimed.centre.runtime.database.session() as session:
        history = service.history(session, claimed.reader, claimed.case_id)
    assert len(history) == 6
    assert all(change.undone for change in history)


def test_redo_makes_changes_again_in_their_order_and_can_be_taken_back(claimed: Ward) -> None:
    _change(claimed, [IG, "c1"], CellClass.BLAST, "k1")
    _change(claimed, [IG], CellClass.MYELOCYTE, "k2")
    _undo(claimed, "u1")
    _undo(claimed, "u2")
    first = _redo(claimed, "r1")
    assert _labels(first) == {IG: CellClass.BLAST, "c1": CellClass.BLAST}
    assert {cell.changed_by for cell in first.cells} == {"Dr. A. Reader"}
    assert _redo(claimed, "r1") == first
    assert _labels(_redo(claimed, "r2")) == {IG: CellClass.MYELOCYTE}
    with pytest.raises(ConflictError, match="nothing to do again"):
        _redo(claimed, "r3")
    assert _labels(_undo(claimed, "u3")) == {IG: CellClass.BLAST}
    assert _labels(_redo(claimed, "r4")) == {IG: CellClass.MYELOCYTE}


def test_redo_after_a_new_change_is_refused(claimed: Ward) -> None:
    _change(claimed, [IG], CellClass.BLAST, "k1")
    _undo(claimed, "u1")
    _change(claimed, ["c1"], CellClass.MONOCYTE, "k2")
    with pytest.raises(ConflictError, match="nothing to do again"):
        _redo(claimed, "r1")


def test_redo_stands_in_history_and_audit_as_an_act_of_its_own(claimed: Ward) -> None:
    _change(claimed, [IG], CellClass.BLAST, "k1")
    _undo(claimed, "u1")
    assert _redo(claimed, "r1").changes == 1
    with claimed.centre.runtime.database.session() as session:
        history = service.history(session, claimed.reader, claimed.case_id)
        actions = [entry.action for entry in session.exec(select(AuditEntry)) if entry.action.startswith("cells.")]
    assert [(line.kind, line.previous, line.label, line.undone) for line in history] == [
        (ChangeKind.REDO, CellClass.IMMATURE_GRANULOCYTE, CellClass.BLAST, False),
        (ChangeKind.UNDO, CellClass.BLAST, CellClass.IMMATURE_GRANULOCYTE, True),
        (ChangeKind.CLASS, CellClass.IMMATURE_GRANULOCYTE, CellClass.BLAST, True),
    ]
    assert actions == ["cells.reclassified", "cells.change_undone", "cells.change_redone"]


def test_undo_of_a_cell_that_another_reader_changed_since_is_refused(claimed: Ward) -> None:
    _change(claimed, [IG], CellClass.BLAST, "k1")
    with claimed.centre.runtime.database.session() as session:
        cases.claim(session, claimed.second_reader, claimed.case_id, take_over=True)
    _change(claimed, [IG], CellClass.MYELOCYTE, "k2", who=claimed.second_reader)
    with claimed.centre.runtime.database.session() as session:
        cases.claim(session, claimed.reader, claimed.case_id, take_over=True)
    with pytest.raises(ConflictError, match="Another reader"):
        _undo(claimed, "u1")
    with claimed.centre.runtime.database.session(read_only=True) as session:
        view = cases.case_view(session, claimed.reader, claimed.case_id)
    cell = next(cell for cell in view.cells if cell.cell_id == IG)
    assert (cell.current_class, cell.changed_by) == (CellClass.MYELOCYTE, "Dr. B. Second")
