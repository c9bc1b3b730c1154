"""A cell as a node sent it, as a row."""

from server.models import CaseCell
from shared.contracts.analysis import Cell


def cell_row(case_id: str, cell: Cell, blob: str) -> CaseCell:
    """Return a cell's row; no reader has touched it."""
    x0, y0, x1, y1 = cell.box
    return CaseCell(
        case_id=case_id,
        cell_id=cell.id,
        field=cell.field,
        x0=x0,
        y0=y0,
        x1=x1,
        y1=y1,
        blob=blob,
        ai_class=cell.cls,
        ai_probability=cell.probability,
        ai_margin=cell.margin,
        prediction_set=[cls.value for cls in cell.prediction_set],
        ood_score=cell.ood_score,
        edge=cell.edge,
        provisional=cell.provisional,
        current_class=cell.cls,
    )
