"""A case as somebody sees it who is to read it blind: only what their reading may rest on."""

from hashlib import sha256

from server.cases import views
from server.cases.schemas import BlindView, CaseView, CellView
from server.cases.sight import Sight
from server.models import CaseCell, OpinionKind
from shared.contracts.analysis import Differential, Quality
from shared.contracts.ontology import CellClass
from shared.statistics import differential


def blind_cells(case_id: str, cells: list[CaseCell], sight: Sight, me: str) -> list[CellView]:
    """Return the cells as the hospital sent them, with this reader's own classes; ``cells`` are all of the case.

    Those that it sent later ("count 100 more") are among them. All are numbered by themselves: a gap would tell how
    many the first reader marked before these came.

    Without the AI they stand in a neutral order: by place in the fields, single cells by a hash.
    """
    sent = [cell for cell in cells if cell.added_by is None]
    shown = [_cell(cell, number, sight, me) for number, cell in enumerate(sent, start=1)]
    if sight.hides_ai:
        return sorted(shown, key=lambda view: _neutral(case_id, view))
    return sorted(shown, key=views.reading_order)


def _neutral(case_id: str, view: CellView) -> tuple[int, int, int, str]:
    place = (view.field, view.box[1], view.box[0]) if view.field is not None else (-1, 0, 0)
    return *place, sha256(f"{case_id}/{view.cell_id}".encode()).hexdigest()


def _cell(cell: CaseCell, number: int, sight: Sight, me: str) -> CellView:
    own = sight.labels.get(cell.cell_id)
    seen = {
        "cell_id": cell.cell_id,
        "number": number,
        "field": cell.field,
        "box": (cell.x0, cell.y0, cell.x1, cell.y1),
        "blob": cell.blob,
        "edge": cell.edge,
        "changed_by": me if own else None,
        "changed_at": None,
    }
    if sight.hides_ai:
        # "Doubtful" leads from cell to cell: here, whatever is not classified yet, one like the other.
        return CellView.model_validate(
            {
                **seen, "ai_class": CellClass.UNIDENTIFIED, "ai_probability": 0.0, "prediction_set": [],
                "ood_score": 0.0, "provisional": False, "current_class": own or CellClass.UNIDENTIFIED,
                "doubtful": own is None,
            }
        )  # fmt: skip
    return CellView.model_validate(
        {
            **seen, "ai_class": cell.ai_class, "ai_probability": cell.ai_probability,
            "prediction_set": cell.prediction_set, "ood_score": cell.ood_score, "provisional": cell.provisional,
            "current_class": own or cell.ai_class, "doubtful": own is None and views.is_unsure(cell),
            "margin": cell.ai_margin,
        }
    )  # fmt: skip


def blind_differential(cells: list[CellView], sight: Sight) -> Differential:
    """Return the differential of this reader's own classes; with the AI shown, of its classes where there is none."""
    counted = [cell for cell in cells if cell.changed_by is not None] if sight.hides_ai else cells
    return differential(cell.current_class for cell in counted)


def blind_view(case: CaseView, cells: list[CellView], sight: Sight, blind: BlindView) -> CaseView:
    """Return the case with everything taken out that is hidden; ``case`` is as everybody else sees it."""
    hidden: dict[str, object] = {
        "cells": cells,
        "differential": blind_differential(cells, sight),
        "blind": blind,
        "report_id": None,
    }
    if sight.hides_first:
        hidden |= {"version": blind.labelled, "amending": None}
    if sight.hides_ai:
        quality = Quality(
            white_cells=0, focus=case.quality.focus, brightness=case.quality.brightness, ood_fraction=0.0,
            warnings=case.quality.warnings,
        )  # fmt: skip
        hidden |= {
            "flags": [],
            "quality": quality,
            "ai_differential": {},
            "untrained_classes": [],
            "limits": {},
            "model_version": "",
            "overlays": [],
        }
    return case.model_copy(update=hidden)


def blind_kind(sight: Sight) -> OpinionKind:
    """Return what the reading is blind to above all."""
    return OpinionKind.SECOND if sight.hides_first else OpinionKind.FIRST
