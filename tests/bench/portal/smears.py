"""Smears of a size that is asked for, drawn by machine."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.contracts.analysis import Smear
from shared.statistics import differential
from tests.portal.drawn import DrawnSmear, draw_smears


@cache
def smear(cells: int, fields: int) -> DrawnSmear:
    """Return a smear of exactly so many cells on so many fields: fields of several drawn smears in a row."""
    with TemporaryDirectory(prefix="hematovision-bench-") as folder:
        drawn = [one for one in draw_smears(Path(folder), cells_per_field=-(-cells // fields) + 4) if one.smear.fields]
    return joined(drawn, cells, fields)


def joined(drawn: list[DrawnSmear], cells: int, fields: int) -> DrawnSmear:
    """Return the first fields of the smears as one, with as many of their cells as are wanted, shared out evenly.

    Raises:
        ValueError: there are fewer.
    """
    images: dict[str, bytes] = {}
    pictures, kept = [], []
    for one in drawn:
        for at, field in enumerate(one.smear.fields):
            if len(pictures) == fields:
                break
            number, path = len(pictures), f"field-{len(pictures)}.jpg"
            images[path] = one.images[field.path]
            pictures.append(field.model_copy(update={"path": path}))
            quota = cells * (number + 1) // fields - len(kept)
            here = [cell for cell in one.smear.cells if cell.field == at][:quota]
            for cell in here:
                name = f"c{len(kept) + 1:03d}"
                images[f"cell-{name}.png"] = one.images[cell.source or ""]
                kept.append(cell.model_copy(update={"id": name, "field": number, "source": f"cell-{name}.png"}))
    if len(pictures) < fields or len(kept) < cells:
        raise ValueError(f"Only {len(pictures)} fields with {len(kept)} cells were drawn.")
    of = drawn[0].smear
    white = sum(cell.cls.info.counts for cell in kept)
    made = of.model_copy(
        update={
            "fields": tuple(pictures),
            "cells": tuple(kept),
            "flags": (),
            "differential": differential(cell.cls for cell in kept),
            "quality": of.quality.model_copy(update={"white_cells": white}),
        }
    )
    return DrawnSmear(Smear.model_validate(made.model_dump(by_alias=True)), images)
