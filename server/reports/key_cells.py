"""Which cells a report shows: what the flags rest on, what the reader changed, then one good example a class."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from server.models import CaseCell
from shared.contracts.analysis import Flag
from shared.contracts.ontology import CellClass
from shared.contracts.report import KeyCell

LIMIT: Final = 24
_EXAMPLES: Final = 2
_PER_CLASS: Final = 6
_NOTABLE: Final = frozenset(
    {
        CellClass.BLAST,
        CellClass.PROMYELOCYTE,
        CellClass.MYELOCYTE,
        CellClass.METAMYELOCYTE,
        CellClass.IMMATURE_GRANULOCYTE,
        CellClass.VARIANT_LYMPHOCYTE,
        CellClass.ABNORMAL_LYMPHOCYTE,
        CellClass.PLASMA_CELL,
        CellClass.ERYTHROBLAST,
    }
)


def choose(cells: list[CaseCell], flags: Iterable[Flag]) -> tuple[KeyCell, ...]:
    """Return at most `LIMIT` cells in reporting order, few of each class; ``cells`` come by number."""
    evidence = {cell_id for flag in flags if flag.kind == "morphology" for cell_id in flag.evidence.cells}
    changed = [cell for cell in cells if cell.current_class is not cell.ai_class]
    notable = [cell for cell in cells if cell.cell_id in evidence or cell.current_class in _NOTABLE]
    chosen: dict[str, CaseCell] = {}
    shown: Counter[CellClass] = Counter()
    for cell in [*_examples(changed), *_examples(notable), *changed, *notable, *_examples(cells)]:
        if len(chosen) < LIMIT and cell.cell_id not in chosen and shown[cell.current_class] < _PER_CLASS:
            chosen[cell.cell_id] = cell
            shown[cell.current_class] += 1
    ordered = sorted(chosen.values(), key=lambda cell: cell.current_class.order)
    return tuple(
        KeyCell.model_validate(
            {
                "cell_id": cell.cell_id,
                "class": cell.current_class,
                "blob": cell.blob,
                "changed_by_reader": cell.current_class is not cell.ai_class,
            }
        )
        for cell in ordered
    )


def _examples(cells: list[CaseCell]) -> list[CaseCell]:
    """Return the most certain cells of each class that counts."""
    found: list[CaseCell] = []
    for cls in CellClass:
        of_class = [cell for cell in cells if cell.current_class is cls and cls.info.counts]
        found += sorted(of_class, key=lambda cell: -cell.ai_probability)[:_EXAMPLES]
    return found
