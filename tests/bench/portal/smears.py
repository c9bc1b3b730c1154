"""Smears of a size that is asked for, drawn by machine."""

from functools import cache

from shared.contracts.analysis import Smear
from shared.statistics import differential
from tests.portal.drawn import DrawnSmear, draw_smears


@cache
def smear(cells: int, fields: int) -> DrawnSmear:
    """Return a smear of exactly so many cells on so many fields."""
    return joined([one for one in draw_smears() if one.smear.fields], cells, fields)


def joined(drawn: list[DrawnSmear], cells: int, fields: int) -> DrawnSmear:
    """Return the first fields of the smears as one; where they hold too few cells, others' cells stand on them too.

    Raises:
        ValueError: there are fewer fields or cells.
    """
    pictures = [(one, at) for one in drawn for at in range(len(one.smear.fields))]
    found = [(one, cell) for one, at in pictures for cell in one.smear.cells if cell.field == at]
    if len(pictures) < fields or len(found) < cells:
        raise ValueError(f"Only {len(pictures)} fields with {len(found)} cells were drawn.")
    images: dict[str, bytes] = {}
    shown = []
    for number, (one, at) in enumerate(pictures[:fields]):
        path = f"field-{number}.jpg"
        images[path] = one.images[one.smear.fields[at].path]
        shown.append(one.smear.fields[at].model_copy(update={"path": path}))
    kept = []
    for number, (one, cell) in enumerate(found[:cells]):
        name = f"c{number + 1:03d}"
        images[f"cell-{name}.png"] = one.images[cell.source or ""]
        here = {"id": name, "field": number * fields // cells, "source": f"cell-{name}.png"}
        kept.append(cell.model_copy(update=here))
    white = sum(cell.cls.info.counts for cell in kept)
    made = drawn[0].smear.model_copy(
        update={
            "fields": tuple(shown),
            "cells": tuple(kept),
            "flags": (),
            "differential": differential(cell.cls for cell in kept),
            "quality": drawn[0].smear.quality.model_copy(update={"white_cells": white}),
        }
    )
    return DrawnSmear(Smear.model_validate(made.model_dump(by_alias=True)), images)
