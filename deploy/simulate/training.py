"""Rounds with hospitals that train: the conductor of a real run over catalogues shared out on this machine."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.labelled import LabelledCell, as_predicted
from deploy.demo.memory import PeakMemory
from deploy.services.object_store import StoreAddress
from deploy.simulate.fleet import PoolFleet, trainers
from deploy.simulate.partition import Sharing, share_out
from deploy.simulate.result import Scale
from deploy.simulate.world import centre, join, prepared_run, seen
from server.federation.rounds import conduct
from server.federation.schemas import RunPlan, RunView
from shared.contracts.errors import NotFoundError, NothingToDoError
from shared.contracts.ontology import CellClass
from shared.progress import Reporter

_OFTEN = 0.02
_LEAST_CELLS = 20
"""A class is trained where so many training cells are there, as at a real launch."""


@dataclass(frozen=True, slots=True)
class Hospitals:
    """Whose cells are shared out, and how; ``source`` is the home of their catalogue."""

    source: Path
    sharing: Sharing
    alpha: float
    seed: int


def imported(data: Path | None, home: Path | None, *, work: Path) -> Path:
    """Return the home of the catalogue to share out: ``home``, or one into which ``data`` or synthetic smears go.

    Raises:
        NotFoundError: there is no catalogue in ``home``, or no folder ``data``.
        NoLabelsError: nothing in ``data`` is labelled.
    """
    if home is not None:
        if not (home / "catalogue.sqlite").is_file():
            raise NotFoundError(f"There is no catalogue in {home}: give the home of a node that has imported images.")
        return home.resolve()
    into = work / "catalogue"
    if data is None:
        import_source(into, work / "synthetic", "synthetic")
    else:
        import_source(into, data.resolve())
    return into


def cells_to_share(source: Path) -> tuple[list[LabelledCell], list[CellClass]]:
    """Return the labelled cells that can be trained on, and the classes of the run.

    Raises:
        NothingToDoError: fewer than two classes have enough training cells.
    """
    cells = Catalogue(source).cells()
    counts = dict.fromkeys(CellClass, 0)
    held = {cell.cls for cell in cells}
    for cell in cells:
        parent = cell.cls.info.parent
        if cell.split == "train":
            counts[parent if parent in held and parent is not None else cell.cls] += 1
    classes = sorted((cls for cls, count in counts.items() if count >= _LEAST_CELLS), key=lambda cls: cls.order)
    if len(classes) < 2:
        raise NothingToDoError(
            f"Fewer than two classes have {_LEAST_CELLS} training cells: import more labelled images."
        )
    return [cell for cell in cells if as_predicted(cell.cls, classes)], classes


def simulate(
    plan: RunPlan,
    whose: Hospitals,
    count: int,
    *,
    budget: int,
    store: StoreAddress,
    work: Path,
    report: Reporter,
) -> tuple[Scale, RunView]:
    """Conduct a run of ``plan`` with ``count`` hospitals, ``budget`` of which train at a time; below ``work``.

    Raises:
        HematovisionError: as a real run does.
    """
    cells, classes = cells_to_share(whose.source)
    parts = share_out(cells, count, sharing=whose.sharing, alpha=whose.alpha, seed=whose.seed)
    folder = work / f"with-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    plan = plan.model_copy(update={"classes": classes, "min_sites": count})
    with centre(folder / "centre", store, bucket=f"simulation-{count}") as runtime, trainers(budget) as pool:
        report.describe(f"simulate: {count} hospitals, making their homes")
        homes = join(runtime, whose.source, parts, work=folder, cache=work / "maps")
        run_id = prepared_run(runtime, plan)
        report.describe(f"simulate: {count} hospitals, {plan.rounds} rounds, then the candidate at each")
        fleet = PoolFleet(homes, pool, budget, heard=report.advance)
        with PeakMemory(interval_seconds=_OFTEN, tree=False) as memory:
            conduct(runtime, run_id, fleet, flower_run_id=f"simulated-{time.time_ns()}", breath_seconds=0)
        view = seen(runtime, run_id)
    return _scale(view, count, memory.peak_mb, fleet.trainer_bytes / 1e6), view


def _scale(view: RunView, count: int, server_mb: float, trainer_mb: float) -> Scale:
    seconds = [row.seconds or 0.0 for row in view.round_views]
    later: Sequence[float] = seconds[1:] or seconds
    told = [metrics for metrics in view.per_site.values() if metrics.n]
    judged = sum(metrics.n for metrics in told)
    taken = sum(row.replied for row in view.round_views)
    return Scale(
        hospitals=count,
        rounds=len(seconds),
        updates=taken,
        seconds_a_round=sum(later) / len(later),
        first_round_seconds=seconds[0],
        server_mb=server_mb,
        trainer_mb=trainer_mb,
        accuracy=sum(metrics.accuracy * metrics.n for metrics in told) / judged if judged else None,
        epsilon=view.epsilon,
        megabytes=sum(row.bytes_up for row in view.round_views) / max(taken, 1) / 1e6,
    )
