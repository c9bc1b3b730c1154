"""Tries a model on the site's own validation cells and fits the site's calibration, in a process of its own.

``python -m client_node.models.trial --home H --version V [--against W]`` prints one `Trial` as JSON.
"""

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client_node.analysis import ranges
from client_node.analysis.detection.compare import compare
from client_node.analysis.model import LoadedModel, adapter_file, load_model
from client_node.analysis.ranges import Look, SiteRanges
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell, as_predicted
from client_node.home import NodeHome
from client_node.ipc import Lease
from client_node.models import store
from client_node.models.contract import Trial
from client_node.models.own_form import drop_own_form, keep_own_form, own_form
from client_node.models.personal import MOST_TAUGHT, Form, Seen, applied, choose, seen
from client_node.models.unlabelled import Nearer, view_without_labels
from client_node.models.view import chosen_view, outputs, shown
from client_node.policy import load_policy
from shared.contracts.errors import (
    ConflictError,
    DataInvalidError,
    HematovisionError,
    ModelInvalidError,
    NotFoundError,
    UsageError,
)
from shared.contracts.ontology import CellClass
from shared.contracts.training import OwnPart
from shared.crypto.pki import write_private
from shared.vision import calibration, conformal, gamut, preprocessing
from shared.vision.colour import SiteView
from shared.vision.images import load_image
from shared.vision.precision import Precision
from shared.vision.site_head import SiteHead

_BATCH: Final = 8
_MOST_CELLS: Final = 1500
_LEAST_TO_FIT: Final = 20
_PROBE_SIDE: Final = 64
_MOST_LOOKED: Final = 80
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Run:
    """One model's outputs on the cells, gathered batch by batch, as they would be shown to it."""

    def __init__(self, model: LoadedModel, view: SiteView) -> None:
        self.model = model
        self.view = view
        self.head: SiteHead | None = None
        """The site's, where it has one for this model."""
        self.logits: list[Floats] = []
        self.features: list[Floats] = []

    def add(self, crops: list[Pixels]) -> None:
        """Run one batch of crops that were cut for the view.

        Raises:
            ModelInvalidError: the outputs are not finite, or not one row a cell and one column a class.
        """
        recipe = self.model.card.recipe
        logits, features = outputs(self.model, crops, self.view)
        if logits.shape != (len(crops), len(recipe.classes)) or not np.isfinite(logits).all():
            raise ModelInvalidError("The model gives no usable figures; ask the centre for a new one.")
        self.logits.append(logits)
        self.features.append(features)

    def parts(self, own: Collection["Run"] = ()) -> tuple[OwnPart, ...]:
        """Return what it has of the site's own; the networks of ``own`` have its normalisation."""
        flags = {
            OwnPart.VIEW: not self.view.plain,
            OwnPart.NORMALISATION: self in own,
            OwnPart.HEAD: self.head is not None,
        }
        return tuple(part for part, has in flags.items() if has)

    def hits(self, cells: list[LabelledCell]) -> NDArray[np.bool_]:
        """Whether each cell was called what it is; a cell whose class the model cannot predict is missed."""
        classes = self.model.classes
        best = applied(self.head, np.concatenate(self.logits), np.concatenate(self.features)).argmax(axis=1)
        return np.array(
            [classes[row] is as_predicted(cell.cls, classes) for row, cell in zip(best, cells, strict=True)]
        )


def run_trial(home: NodeHome, version: str, against: str | None) -> Trial:
    """Evaluate ``version`` (and ``against``) on the same cells of the validation split; fit ``adapter.json``.

    Each model runs as it would analyse: the candidate in the view that suits it here and with what the site keeps of
    its own, the other with what it has. The calibration is fitted only where the site has enough cells; else the card's
    own is used.

    Raises:
        ModelInvalidError: ``version`` cannot be loaded, or does not compute.
    """
    fit_ranges(home)
    candidate = load_model(home.model(version), precision=Precision.FP32)
    classes = len(candidate.classes)
    Run(candidate, SiteView()).add([np.full((_PROBE_SIDE, _PROBE_SIDE, 3), 200, np.uint8)])
    shared, others = Run(candidate, best_view(home, candidate)), list(_other(home, against))
    with own_form(home, candidate) as made:
        own = [Run(made, SiteView())] if made is not None else []
        cells = feed(home, [shared, *own, *others])
        chosen, fitted = _fitted(home, shared, own, cells)
    lacks = candidate.card.recipe.local_normalisation and not own
    if not cells:
        return Trial(
            n=0, accuracy=None, current_accuracy=None, classes=classes, fitted=False, lacks_own_normalisation=lacks
        )
    return Trial(
        n=len(cells),
        accuracy=float(chosen.hits(cells).mean()),
        current_accuracy=float(others[0].hits(cells).mean()) if others else None,
        classes=classes,
        fitted=fitted,
        parts=chosen.parts(own),
        lacks_own_normalisation=lacks,
    )


def _fitted(home: NodeHome, shared: Run, own: list[Run], cells: list[LabelledCell]) -> tuple[Run, bool]:
    """Keep what the site has of its own; return the network that then runs, and whether its calibration was fitted."""
    folder = home.model(shared.model.card.version)
    drop_own_form(folder)
    form = _form(home, shared, cells)
    if own and len(form.validation.cells) >= _LEAST_TO_FIT:
        other = _form(home, own[0], cells)
        if choose(form, other).normalisation:
            fit(home, shared, cells, form)  # what runs should the own form be damaged
            fitted = fit(home, own[0], cells, other)
            keep_own_form(folder)
            return own[0], fitted
    return shared, fit(home, shared, cells, form)


def fit_ranges(home: NodeHome) -> None:
    """Fit what this site's good images look like, on its labelled ones; kept beside the models, for all of them."""
    catalogue, policy = Catalogue(home.path), load_policy(home)
    fields = [one.path for one in catalogue.fields() if policy.allows_source(one.source)]
    cells = [one.path for one in catalogue.cells() if one.box is None and policy.allows_source(one.source)]
    found = SiteRanges(
        fields=ranges.fit(_looks(home, fields)),
        cells=ranges.fit(_looks(home, cells)),
        gamut=gamut.fit(_images(home, [*sorted(fields)[:_MOST_LOOKED], *sorted(cells)[:_MOST_LOOKED]])),
    )
    if found != ranges.load_ranges(home.path):
        ranges.save_ranges(home.path, found)


def _looks(home: NodeHome, paths: list[Path]) -> Iterator[Look]:
    return map(ranges.look, _images(home, sorted(paths)[:_MOST_LOOKED]))  # their names are hashes: any of them


def _images(home: NodeHome, paths: Iterable[Path]) -> Iterator[Pixels]:
    lease = Lease(home.path)
    for path in paths:
        lease.pause_point()
        with suppress(DataInvalidError):
            yield load_image(path)


def _other(home: NodeHome, version: str | None) -> Iterator[Run]:
    if version is not None:
        try:
            model = load_model(home.model(version))
            run = Run(model, model.adapter.view)
            run.head = model.adapter.head
            yield run
        except HematovisionError:
            return  # a damaged current model is no reason to refuse a sound one


def feed(home: NodeHome, runs: list[Run]) -> list[LabelledCell]:
    """Run all models on the cells that any of them knows; return the cells whose images could be read."""
    lease, done = Lease(home.path), []
    cells = validation_cells(home, {cls for run in runs for cls in run.model.classes})
    surrounds = {run.view.surround for run in runs}
    for begin in range(0, len(cells), _BATCH):
        lease.pause_point()
        crops: dict[float, list[Pixels]] = {surround: [] for surround in surrounds}
        for cell in cells[begin : begin + _BATCH]:
            try:
                image = load_image(cell.path)
                cut = {one: preprocessing.cell_crop(image, cell.box, surround=one) for one in surrounds}
            except DataInvalidError:
                continue
            done.append(cell)
            for surround, crop in cut.items():
                crops[surround].append(crop)
        for run in runs:
            if crops[run.view.surround]:
                run.add(crops[run.view.surround])
    return done


def validation_cells(home: NodeHome, classes: Collection[CellClass]) -> list[LabelledCell]:
    """Return the site's validation cells of these classes, as far as its policy lets them be used."""
    policy = load_policy(home)
    cells = [cell for cell in Catalogue(home.path).cells(split="val") if policy.allows_source(cell.source)]
    return [cell for cell in cells if as_predicted(cell.cls, classes)][:_MOST_CELLS]


def best_view(home: NodeHome, model: LoadedModel) -> SiteView:
    """Return how this site's cells are best shown to ``model``; see `chosen_view`.

    Where there are enough cells, it is chosen on those that the prediction sets are not fitted on.
    """
    cells = validation_cells(home, model.classes)
    mask = conformal.halves([cell.group for cell in cells], load_policy(home).analysis.coverage)
    some = cells if mask is None else [cell for cell, chosen in zip(cells, mask, strict=True) if chosen]
    return chosen_view(model, some, pause=Lease(home.path).pause_point)


def _form(home: NodeHome, run: Run, cells: list[LabelledCell]) -> Form:
    """Return what a network says of the validation cells that it can predict, and of training cells."""
    classes = run.model.classes
    rows = [row for row, cell in enumerate(cells) if as_predicted(cell.cls, classes)]
    known = [cells[row] for row in rows]
    if not known:
        nothing = Seen([], np.zeros((0, len(classes)), np.float32), np.zeros((0, 1), np.float32), np.zeros(0, np.int64))
        return Form(nothing, nothing)
    logits, features = np.concatenate(run.logits)[rows], np.concatenate(run.features)[rows]
    return Form(_training_cells(home, run.model, run.view), seen(known, logits, features, classes))


def fit(home: NodeHome, run: Run, cells: list[LabelledCell], form: Form | None = None) -> bool:
    """Write the site's calibration and head, by the cells that the candidate can predict; return if these sufficed.

    The run has the head from then on. ``form``: what `_form` found already.
    """
    model, form = run.model, form or _form(home, run, cells)
    taught, own = form.taught, form.validation
    if len(own.cells) < _LEAST_TO_FIT:
        keep_default(home, model)
        return False
    run.head = choose(form).head
    adapter = calibration.fit_adapter(
        own.logits,
        own.features,
        own.labels,
        reference=taught.features if len(taught.cells) >= _LEAST_TO_FIT else None,
        groups=[cell.group for cell in own.cells],
        level=load_policy(home).analysis.coverage,
        told=model.card.calibration,
        view=run.view,
        head=run.head,
    )
    _keep(home, model, adapter)
    return True


def keep_default(home: NodeHome, model: LoadedModel) -> Nearer | None:
    """Write what a site without enough labels uses: the card's calibration, for the coverage that the site asks for.

    Where its policy allows that, in a view chosen without labels; return what was found about it.
    """
    policy = load_policy(home).analysis
    found = None
    if policy.view_without_labels:
        plain = replace(model, adapter=calibration.Adapter())
        found = view_without_labels(home.path, plain, pause=Lease(home.path).pause_point)
    adapter = calibration.default_adapter(model.card.calibration, level=policy.coverage)
    _keep(home, model, adapter.model_copy(update={"view": found.view}) if found else adapter)
    return found


def choose_without_labels(home: NodeHome) -> Nearer:
    """Choose the view of the model in use anew, on a site without labels whose policy allows it.

    Raises:
        UsageError: it does not allow it.
        ConflictError: the site's labels have chosen the view.
        NotFoundError: no model is installed.
    """
    version = store.current_version(home)
    if version is None:
        raise NotFoundError("No model is installed yet: run the node until the centre has promoted one.")
    if not load_policy(home).analysis.view_without_labels:
        raise UsageError("policy.toml does not allow it: read what is said there, and in docs/doubt.md, about it.")
    model = load_model(home.model(version), precision=Precision.FP32)
    if model.adapter.cells:
        raise ConflictError("This site's own labels have chosen its view: import more to choose it better.")
    found = keep_default(home, model)
    if found is None:  # the policy has changed meanwhile
        raise UsageError("policy.toml does not allow it any more.")
    return found


def _keep(home: NodeHome, model: LoadedModel, adapter: calibration.Adapter) -> None:
    adapter = adapter.model_copy(update={"finder": _finds_well(home, replace(model, adapter=adapter))})
    file = home.model(model.card.version) / adapter_file(model.engine)
    write_private(file, adapter.model_dump_json().encode())


def _finds_well(home: NodeHome, model: LoadedModel) -> bool | None:
    """Return whether the finder does as well as plain proposals on the site's validation fields; None: no telling."""
    if not model.card.finds:
        return None
    policy = load_policy(home)
    fields = [one for one in Catalogue(home.path).fields(split="val") if policy.allows_source(one.source)]
    found = compare(fields, lambda crops: model.look(crops)[1], pause=Lease(home.path).pause_point)
    return not found.worse if found is not None and found.judges else None


def _training_cells(home: NodeHome, model: LoadedModel, view: SiteView) -> Seen:
    """Return some training cells: what is known and the site's head are fitted there, and judged on others."""
    policy = load_policy(home)
    cells = [cell for cell in Catalogue(home.path).cells(split="train") if policy.allows_source(cell.source)]
    some = [cell for cell in cells if as_predicted(cell.cls, model.classes)][:MOST_TAUGHT]
    return seen(*shown(model, some, view, pause=Lease(home.path).pause_point), model.classes)


def main(arguments: list[str] | None = None) -> int:
    """Run a trial; the parent reads one line of JSON, or an error's sentence and exit status."""
    parser = argparse.ArgumentParser(prog="client_node.models.trial")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--against")
    options = parser.parse_args(arguments)
    try:
        trial = run_trial(NodeHome(options.home), options.version, options.against)
    except HematovisionError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    sys.stdout.write(trial.model_dump_json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
