"""What a node does with a request of the centre: refuse it, or train, evaluate or count."""

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import nn

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell
from client_node.ipc import Lease
from client_node.models.personal import Seen, seen
from client_node.policy import load_policy
from client_node.training import augment
from client_node.training import privacy as private
from client_node.training.base import ensure_base
from client_node.training.cache import CropCache, FeatureCache
from client_node.training.candidate import finder_metrics
from client_node.training.carried import Carried
from client_node.training.evaluation import site_metrics
from client_node.training.finder import teach
from client_node.training.laboratory import told_laboratory
from client_node.training.local import LocalNormalisation
from client_node.training.loop import Labels, apart, predict, train
from client_node.training.manifest import write_manifest
from client_node.training.model_store import ModelStore, Tensors, get_tensors, set_tensors
from client_node.training.own import Cells, as_run_here, own_worn
from client_node.training.private_loop import CHUNK
from client_node.training.private_training import PrivateTraining
from client_node.training.share import Hold
from client_node.training.site import allowed_cells, allowed_fields, current_metrics, positions, teaching_fields
from client_node.training.sources import CropSource, MapSource, Source
from shared.contracts.errors import (
    ConflictError,
    DataInvalidError,
    HematovisionError,
    NothingToDoError,
    ServiceUnavailableError,
    UsageError,
)
from shared.contracts.laboratory import KnownLaboratory
from shared.contracts.ontology import CellClass
from shared.contracts.training import (
    CensusReply,
    CensusRequest,
    DryRunReply,
    DryRunRequest,
    EvaluateReply,
    EvaluateRequest,
    Refusal,
    Reply,
    Request,
    TrainReply,
    TrainRequest,
)
from shared.vision import calibration, colour, dye, preprocessing
from shared.vision.device import is_out_of_memory, torch_device
from shared.vision.images import load_image
from shared.vision.model import CellModel

_MOST_BATCH_VALUES = 4_000_000
"""Values of a batch's maps: training holds about a hundred bytes for each."""
_MOST_BATCH_PIXELS = 2_000_000
"""Pixels of a batch where the whole network learns: training holds about two kilobytes for each."""
_MOST_STAINED = 200
"""So many cells tell how much dye a site's cells take."""
_NO_MEMORY = "This node has too little memory for the request; ask for a smaller batch or input size."
_FAILED = "This node could not answer: an inner failure; see the node's log."
_TOO_LARGE = "The batch is too large for a node's memory; ask for a smaller batch or input size."

Received = Mapping[str, NDArray[np.generic]]
Abandoned = Callable[[], str]
"""Why nobody waits for the answer any more; empty where somebody does. See `client_node.training.turns`."""
_Told = TypeVar("_Told")
_Answer = tuple[Reply, _Told]

log = structlog.get_logger(__name__)


def _wanted() -> str:
    return ""


class TrainingService:
    """The federated side of one node; one request at a time (the caller's duty).

    ``stopping`` is asked between batches: once true, the request at hand ends with a refusal. ``device`` is asked for
    each request where to compute; a GPU is left again after each. ``models``: a warm model that several nodes of one
    process share, one request at a time (a simulation of many hospitals).
    """

    def __init__(
        self,
        home: Path,
        *,
        stopping: Callable[[], bool] = lambda: False,
        device: Callable[[], torch.device] = torch_device,
        models: ModelStore | None = None,
    ) -> None:
        self._home = home
        self._stopping = stopping
        self._lease = Lease(home)
        self._models = models or ModelStore(device)
        self._hold: Hold | None = None
        self._abandoned: Abandoned = _wanted

    def handle(self, request: Request, tensors: Received) -> tuple[Reply, Tensors]:
        """Answer a request; whatever goes wrong becomes a `Refusal`, without inner detail."""
        size = sum(array.nbytes for array in tensors.values())
        return self._released(request, lambda: self._answer(request, lambda: tensors, size=size), {})

    def exchange(self, request: Request, body: bytes, *, abandoned: Abandoned = _wanted) -> tuple[Reply, bytes]:
        """Answer a request whose tensors are as they travel, with tensors as they travel; see `handle`.

        ``abandoned`` is asked between batches why nobody waits for the answer any more: the request then ends so.
        """

        def answered() -> tuple[Reply, bytes]:
            carried = Carried(self._models, request, body)
            reply, update = self._answer(request, carried.read, size=len(body), abandoned=abandoned)
            return reply, carried.write(update)

        return self._released(request, answered, b"")

    def _released(self, request: Request, work: Callable[[], tuple[Reply, _Told]], nothing: _Told) -> _Answer[_Told]:
        try:
            return self._guarded(request, work, nothing)
        finally:
            self._models.release()  # not earlier: an error holds what lay on the GPU when it was raised

    def _guarded(self, request: Request, work: Callable[[], tuple[Reply, _Told]], nothing: _Told) -> _Answer[_Told]:
        try:
            return work()
        except HematovisionError as error:
            log.warning("training.refused", request=request.kind, code=error.code, reason=error.message)
            return Refusal(code=error.code, reason=error.message), nothing
        except Exception as error:  # the process must outlive any one request
            if is_out_of_memory(error):
                log.exception("training.out_of_memory", request=request.kind)
                return Refusal(code=NothingToDoError.code, reason=_NO_MEMORY), nothing
            log.exception("training.failed", request=request.kind)
            return Refusal(code=HematovisionError.code, reason=_FAILED), nothing

    def _answer(
        self, request: Request, read: Callable[[], Received], *, size: int, abandoned: Abandoned = _wanted
    ) -> tuple[Reply, Tensors]:
        if isinstance(request, DryRunRequest):
            return self._would(request), {}
        self._abandoned = abandoned
        self._check_wanted()  # it may have waited long for its turn
        policy = load_policy(self._home)
        policy.check_train(request, size=size)
        if isinstance(request, CensusRequest):
            counted = Catalogue(self._home).census(lambda source: policy.allows_source(source, "census"))
            return CensusReply(census=counted), {}
        ensure_base(self._home, policy, request, stopping=self._stopping)
        self._hold = Hold(self._home, request)
        tensors = read()
        if isinstance(request, TrainRequest):
            return self._train(request, tensors)
        return self._evaluate(request, tensors), {}

    def _would(self, request: DryRunRequest) -> DryRunReply:
        """Say whether a round would be trained now; touches neither the model in memory nor an image."""
        policy, recipe = load_policy(self._home), request.recipe
        cells = allowed_cells(self._home, "train", recipe.classes, purpose="train")
        counted = sum(policy.allows_source(cell.source, "census") for cell in cells)
        reason = policy.why_not(request, len(cells), size=request.tensor_bytes)
        if reason is None:
            try:
                private.planned(self._home, policy, request, cells)
                ensure_base(self._home, policy, request, stopping=self._stopping)
                self._models.check(recipe, request.base_sha256)
            except HematovisionError as error:
                reason = error.message
        told = counted if "census" in policy.training.purposes else None
        return DryRunReply(takes_part=reason is None, reason=reason or "", examples=told)

    def _between(self) -> None:
        if self._stopping():
            raise ServiceUnavailableError("This node's trainer is stopping; it takes part again once restarted.")
        self._check_wanted()
        if self._hold is not None:
            self._hold.between(lambda: self._stopping() or bool(self._abandoned()))
        self._lease.pause_point(gpu=self._models.on_gpu, waiting=self._models.yield_gpu)
        if self._hold is not None:
            self._hold.resume()

    def _check_wanted(self) -> None:
        if reason := self._abandoned():
            raise ConflictError(reason)  # of no code for which a hospital counts as lost and is asked again

    def _train(self, request: TrainRequest, tensors: Mapping[str, NDArray[np.generic]]) -> tuple[TrainReply, Tensors]:
        begin = time.monotonic()
        recipe = request.recipe
        cells = allowed_cells(self._home, "train", recipe.classes, purpose="train")
        policy = load_policy(self._home)
        policy.check_train(request, len(cells))
        privately = PrivateTraining(self._home, request, tensors)
        if (answered := privately.answered()) is not None:
            return answered
        privately.planned(cells)  # refused before anything is computed
        model = self._loaded(request, tensors)
        validation, val_labels = self._split(request, model, "val")
        received = site_metrics(self._predicted(model, validation)[0], val_labels, recipe.classes)
        cells, held = apart(cells) if recipe.patience else (cells, [])
        held, watched = self._source(request, model, held, 1)
        cells, source = self._source(request, model, cells, recipe.views)
        if not cells:
            raise NothingToDoError("This hospital has no readable labelled cells of the asked classes.")
        cached, tail = time.monotonic(), copy.deepcopy(model.tail)
        labels, held_labels = positions(cells, recipe.classes), positions(held, recipe.classes)
        local = LocalNormalisation(self._home, request)
        local.put_on(model, lambda: calibration.balanced_loss(self._predicted(model, source)[0], labels))
        if (planned := privately.planned(cells)) is not None:
            privately.train(model, cells, source, planned, between=self._between)
            update = get_tensors(model, tensors)
            local.keep(model)
            return privately.answer(cells, planned, received, update, begin=begin), update
        loss = train(
            model,
            source,
            labels,
            recipe.in_round(request.round, request.rounds),
            seed=_seed(request),
            between=self._between,
            validate=(lambda now: calibration.balanced_loss(self._predicted(now, watched)[0], held_labels))
            if held
            else None,
        )
        boxes = self._teach_finder(request, model, tail)
        update = get_tensors(model, tensors)
        local.keep(model)
        manifest, feedback = write_manifest(self._home / "training" / "manifests", request, [*cells, *held])
        log.info(
            "training.round_done",
            run_key=request.run_key,
            round=request.round,
            cells=len(cells),
            loss=round(loss, 4),
            device=str(next(model.parameters()).device),
            cache_s=round(cached - begin, 2),
            train_s=round(time.monotonic() - cached, 2),
        )
        reply = TrainReply(
            examples=len(cells),
            train_loss=loss,
            received=received,
            seconds=time.monotonic() - begin,
            manifest_sha256=manifest,
            feedback_cells=feedback,
            boxes=boxes,
        )
        return reply, update

    def _teach_finder(self, request: TrainRequest, model: CellModel, received: nn.Module) -> int:
        """Train the finder on some of the site's marked fields, others each round; return the cells marked in them."""
        fields = teaching_fields(self._home, purpose="train")
        if not fields:
            return 0
        classes, size = request.recipe.classes, request.recipe.input_size
        usable = allowed_cells(self._home, "train", classes, purpose="train")
        singles = [cell for cell in usable if cell.box is None]
        loss = teach(model, fields, singles, received=received, size=size, seed=_seed(request), between=self._between)
        if loss is None:
            return 0
        log.info("training.finder_done", run_key=request.run_key, round=request.round, loss=round(loss, 4))
        return sum(len(field.cells) for field in fields)

    def _evaluate(self, request: EvaluateRequest, tensors: Mapping[str, NDArray[np.generic]]) -> EvaluateReply:
        begin = time.monotonic()
        classes = request.recipe.classes
        test = allowed_cells(self._home, "test", classes, purpose="evaluate")
        load_policy(self._home).check_train(request, len(test))
        model = self._loaded(request, tensors)
        hidden = private.hides_training(self._home, load_policy(self._home), request)
        plain, own = self._cells(request, model, hidden=hidden), None
        if not hidden:
            with own_worn(self._home, model, request) as has_own:
                own = self._cells(request, model) if has_own else None
        found = as_run_here(self._home, model, request.recipe, plain, own, hidden=hidden, between=self._between)
        adapter, laboratory = self._adapter(plain, classes, hidden=hidden)
        fields = allowed_fields(self._home, "val", purpose="evaluate")
        return EvaluateReply(
            candidate=found.shared,
            own=None if hidden else found.own,
            own_parts=() if hidden else found.parts,
            current=current_metrics(self._home, "test", own=not hidden),
            validation=site_metrics(plain.validation.logits, plain.validation.labels, classes),
            calibration=adapter.summary.model_copy(update=self._stain(classes, "val" if hidden else "train")),
            laboratory=laboratory,
            seconds=time.monotonic() - begin,
            boxes=0 if hidden else sum(len(field.cells) for field in teaching_fields(self._home, purpose="evaluate")),
            finder=finder_metrics(model, request.recipe, fields, found.view, between=self._between),
        )

    def _cells(self, request: EvaluateRequest, model: CellModel, *, hidden: bool = False) -> Cells:
        """Return what the candidate says of the site's readable cells, in the plain view.

        ``hidden`` leaves out the training cells: a candidate that fails on one of them would tell that it is there.
        """
        validation, test = self._seen(request, model, "val"), self._seen(request, model, "test")
        taught = validation.first(0) if hidden else self._seen(request, model, "train")
        return Cells(taught, validation, test)

    def _seen(self, request: EvaluateRequest, model: CellModel, split: str) -> Seen:
        classes = request.recipe.classes
        allowed = allowed_cells(self._home, split, classes, purpose="evaluate")
        cells, source = self._source(request, model, allowed, 1)
        return seen(cells, *self._predicted(model, source), classes)

    def _loaded(self, request: TrainRequest | EvaluateRequest, tensors: Mapping[str, NDArray[np.generic]]) -> CellModel:
        model = self._models.model(request.recipe, request.base_sha256)
        set_tensors(model, tensors)
        return model

    def _adapter(
        self, found: Cells, classes: tuple[CellClass, ...], *, hidden: bool
    ) -> tuple[calibration.Adapter, KnownLaboratory | None]:
        """Return the calibration of the shared network here, and the laboratory: what other hospitals begin with.

        ``hidden``: nothing of the training cells may show, so the space stands on validation cells and there is no
        laboratory.
        """
        known, taught = found.validation, None if hidden else found.taught.features
        groups = [cell.group for cell in known.cells]
        adapter = calibration.fit_adapter(known.logits, known.features, known.labels, reference=taught, groups=groups)
        if taught is None:
            return adapter, None
        return adapter, told_laboratory(self._home, classes, taught, known.features, between=self._between)

    def _stain(self, classes: tuple[CellClass, ...], split: str) -> dict[str, object]:
        """Return how much dye the site's cells took, and of what colour: fields of a `CalibrationSummary`."""
        cells = allowed_cells(self._home, split, classes, purpose="evaluate")
        some = np.random.default_rng(0).permutation(len(cells))[:_MOST_STAINED]
        pixels = dye.stained_pixels(self._crops(cells[place] for place in some))
        return {"density": colour.density_of(pixels), "dye": dye.dye_of(pixels)}

    def _crops(self, cells: Iterable[LabelledCell]) -> Iterator[preprocessing.Pixels]:
        for cell in cells:
            self._between()
            with suppress(DataInvalidError):
                yield preprocessing.cell_crop(load_image(cell.path), cell.box)

    def _split(self, request: TrainRequest | EvaluateRequest, model: CellModel, split: str) -> tuple[Source, Labels]:
        """Return a split's cells as analysis sees them, and their class positions."""
        allowed = allowed_cells(self._home, split, request.recipe.classes, purpose=request.kind)
        cells, source = self._source(request, model, allowed, 1)
        return source, positions(cells, request.recipe.classes)

    def _predicted(self, model: CellModel, source: Source) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return predict(model, source, between=self._between)

    def _source(
        self, request: TrainRequest | EvaluateRequest, model: CellModel, cells: list[LabelledCell], views: int
    ) -> tuple[list[LabelledCell], Source]:
        """Return the cells that could be read, and their source: cached maps, or crops where nothing is frozen.

        Raises:
            UsageError: a batch of the recipe's would not fit a node's memory.
        """
        recipe, folder = request.recipe, self._home / "training" / "cache"
        size, strength = recipe.input_size, augment.STRENGTHS[recipe.augmentation]
        batch = CHUNK if private.is_private(request.privacy) else recipe.batch_size
        if next(model.trunk.parameters(), None) is None:
            if batch * size**2 > _MOST_BATCH_PIXELS:
                raise UsageError(_TOO_LARGE)
            kept, crops = CropCache(folder, size=size).load(cells, between=self._between)
            return kept, CropSource(crops, model, size, strength)
        cache = FeatureCache(
            folder,
            model,
            base_sha256=request.base_sha256,
            size=size,
            strength=strength,
            trunk=lambda: self._models.trunk(model, size),
        )
        if batch * cache.map_values > _MOST_BATCH_VALUES:
            raise UsageError(_TOO_LARGE)
        kept, maps = cache.load(cells, views, between=self._between)
        return kept, MapSource(maps, next(model.parameters()).device)


def _seed(request: TrainRequest) -> int:
    """Return what all random numbers of a round come from."""
    return request.recipe.seed * 1000 + request.round
