"""Analyses smears: detect, crop, classify, calibrate, flag, keep. One bad file never stops the rest."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict

from client_node.analysis import quality
from client_node.analysis.detection import Box
from client_node.analysis.fields import FoundCells, find_cells
from client_node.analysis.further import Further
from client_node.analysis.model import LoadedModel, current_model_dir, load_model
from client_node.analysis.more import Source, sources
from client_node.analysis.overlays import Overlays
from client_node.analysis.prototypes import Lessons
from client_node.analysis.ranges import SiteRanges, known_dye, load_ranges
from client_node.analysis.rules import Evidence, class_limits, flags, load_rules
from client_node.analysis.smears import ImageKind, PlannedImage, SmearKind, SmearPlan, plan_smears
from client_node.analysis.store import SmearStore, Trace
from client_node.analysis.tiling import fields as slide_fields
from client_node.analysis.tiling import sampled
from client_node.analysis.work import Pixels, Waiting, Work, cell_id, read, scored, white
from client_node.datasets.images import file_sha256, read_limited
from client_node.home import NodeHome
from client_node.policy import load_analysis_policy
from shared.contracts.analysis import AnalysisOutput, Cell, FieldImage, Quality, Smear
from shared.contracts.errors import DataInvalidError, NothingToDoError
from shared.contracts.laboratory import Gamut
from shared.contracts.ontology import CellClass
from shared.statistics import differential
from shared.vision.images import load_image
from shared.vision.slides import Slide

log = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""
_BATCH = 64
"""So many cells are classified at a time."""
_EXPECTED = (
    CellClass.BLAST,
    CellClass.IMMATURE_GRANULOCYTE,
    CellClass.NEUTROPHIL,
    CellClass.LYMPHOCYTE,
    CellClass.MONOCYTE,
    CellClass.EOSINOPHIL,
    CellClass.BASOPHIL,
    CellClass.ERYTHROBLAST,
)


class Options(BaseModel):
    """What a caller may ask of an analysis."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SmearKind = SmearKind.AUTO
    pseudo: bool | None = None
    """Overrides what a ``smear.json`` says."""
    synthetic: bool | None = None
    stat: bool = False
    """Training pauses while this smear is analysed."""


class Analyser:
    """The analysis of one node; holds the model, so make one and keep it."""

    def __init__(self, home: Path, *, model_dir: Path | None = None) -> None:
        self._home = Path(home)
        self._model_dir = model_dir
        self._store = SmearStore(self._home)
        self._model: LoadedModel | None = None
        self._overlays = Overlays(self._home)

    @property
    def model(self) -> LoadedModel:
        """The model in use, loaded on first need; see `load_model` for the errors."""
        if self._model is None:
            self._model = self._loaded()
        return self._model

    def reload(self) -> str:
        """Load the node's current model afresh and return its version; on an error the old one stays in use."""
        self._model = self._loaded()
        return self._model.card.version

    def _loaded(self) -> LoadedModel:
        """The model, with the classes that the site has taught."""
        return Lessons(self._home).on(load_model(self._model_dir or current_model_dir(self._home)))

    def analyze(
        self, paths: Sequence[Path], *, options: Options | None = None, progress: Progress | None = None
    ) -> AnalysisOutput:
        """Analyse the smears in ``paths`` (see `plan_smears`) and keep each in the home folder.

        A file that cannot be read is named in its smear's ``quality.warnings``.

        Raises:
            DataInvalidError: not one image could be read.
            NothingToDoError, NotFoundError: see `plan_smears`.
            ModelInvalidError: no usable model.
            NoSpaceError: the disk is full.
        """
        options = options or Options()
        return self.analyze_plans(plan_smears(paths, options.kind), options=options, progress=progress)

    def analyze_plans(
        self, plans: Sequence[SmearPlan], *, options: Options | None = None, progress: Progress | None = None
    ) -> AnalysisOutput:
        """Analyse smears that were planned already; see `analyze`."""
        options = options or Options()
        total, done, read = sum(len(plan.images) for plan in plans), 0, 0

        def taken(good: bool) -> None:
            nonlocal done, read
            done, read = done + 1, read + good
            if progress is not None:
                progress(done, total)

        smears = [self._smear(plan, options, taken) for plan in plans]
        if not read and not any(smear.cells for smear in smears):
            first = smears[0].quality.warnings[0].rstrip(".")
            raise DataInvalidError(f"None of the images can be read ({first}): export them again as JPEG, PNG or TIFF.")
        return AnalysisOutput(smears=tuple(smears))

    def look_further(self, smear_id: str, wanted: int, *, fields: int, cells: int, most: int | None = None) -> Further:
        """Look at further fields of a kept smear, and keep them with it, until it has ``wanted`` white cells more.

        ``fields`` and ``cells`` are how many the centre has: what was found once and never got there counts. So it may
        be called again after a crash. A field that would make it more than ``most`` white cells is left out.

        Raises:
            NothingToDoError: there is nothing else to look at, or no cell in it, or too many are in the next field.
            NotFoundError, DataInvalidError: the smear or its images are not kept here any more, or the model is
                another: a report names one.
        """
        smear = self._store.load(smear_id)
        if not (0 <= fields <= len(smear.fields) and 0 <= cells <= len(smear.cells)):
            raise DataInvalidError("The smear was analysed anew since it was sent; send it as a case of its own.")
        if white(smear.cells[cells:]) < wanted:
            if self.model.card.version != smear.model_version:
                raise DataInvalidError(
                    "The model has changed since this smear was analysed; send it as a case of its own."
                )
            before = white(smear.cells[:cells])
            smear = self._look_on(smear, wanted + before, most=None if most is None else most + before)
        if len(smear.cells) == cells:
            raise NothingToDoError("All fields of this smear that the hospital keeps have been looked at already.")
        log.info("smear.looked_further", smear_id=smear_id, cells=len(smear.cells) - cells)
        return Further(
            first_field=fields, first_cell=cells, fields=len(smear.fields), cells=len(smear.cells),
            model_version=smear.model_version,
        )  # fmt: skip

    def _look_on(self, smear: Smear, white: int, *, most: int | None) -> Smear:
        traces, home = self._store.traces(smear.id), NodeHome(self._home)
        work = Work(
            id=smear.id, fields=list(smear.fields), cells=list(smear.cells), traces=traces,
            gamuts=known_gamuts(self.model, load_ranges(self._home)),
        )  # fmt: skip
        # So that what is found is numbered on from what there is.
        work.waiting = [Waiting(cell.field, cell.box, cell.source, traces[cell.id]) for cell in smear.cells]
        for source in sources(home, smear, traces, most=load_analysis_policy(self._home).slide_fields):
            so_far = (len(work.fields), len(work.cells))
            with suppress(DataInvalidError):
                self._take_more(work, source)
            if most is not None and work.white() > most:
                # What a field holds is known once it was looked at, and half a field is none.
                work.back_to(*so_far)
                if len(work.cells) == len(smear.cells):
                    raise NothingToDoError("The next field holds more cells than the hospital's policy lets go.")
                break
            if work.white() >= white:
                break
        return self._commit_more(work, smear) if len(work.cells) > len(smear.cells) else smear

    def _commit_more(self, work: Work, smear: Smear) -> Smear:
        model, rules, cells = self.model, load_rules(self._home), tuple(work.cells)
        fields = scored(work.fields, cells)
        beyond = sum(cell.ood_score > 1.0 for cell in cells)
        figures = smear.quality.model_copy(update={"white_cells": white(cells), "ood_fraction": beyond / len(cells)})
        seen = evidence(model, load_ranges(self._home), fields, cells, figures)
        whole = smear.model_copy(
            update={
                "fields": fields,
                "cells": cells,
                "differential": differential(cell.cls for cell in cells),
                "flags": flags(rules, seen),
                "limits": class_limits(rules),
                "quality": figures,
            }
        )
        self._store.commit(whole, work.traces)
        return whole

    def _take_more(self, work: Work, source: Source) -> None:
        if source.tile is not None and source.pixels is not None:
            found = find_cells(self.model, source.pixels)
            own = FoundCells(tuple(cell for cell in found.cells if source.tile.owns(cell.box)), found.rejected)
            if own.cells:
                work.judge(source.pixels)
                self._take_field(
                    work, source.pixels, own, source.sha256, path=source.path,
                    origin=(source.tile.x, source.tile.y), microns=source.microns,
                )  # fmt: skip
        else:
            self._take(work, PlannedImage(source.path, source.kind), self.model)
        read(self.model, work)

    def _smear(self, plan: SmearPlan, options: Options, taken: Callable[[bool], None]) -> Smear:
        work = Work(id=_smear_id(plan))
        try:
            return self._analysed(work, plan, options, taken)
        except BaseException:
            self._store.discard(work.id)
            raise

    def _analysed(self, work: Work, plan: SmearPlan, options: Options, taken: Callable[[bool], None]) -> Smear:
        model, rules, site = self.model, load_rules(self._home), load_ranges(self._home)
        work.gamuts = known_gamuts(model, site)
        for image in plan.images:
            good = False
            try:
                self._take(work, image, model)
                good = True
            except DataInvalidError as error:
                work.warnings.append(f"{image.path.name}: {error.message}")
            if len(work.crops) >= _BATCH:
                read(model, work)
            taken(good)
        read(model, work)
        cells = tuple(work.cells)
        figures = quality.summary(
            cells, work.focus, work.brightness, work.dye, work.warnings, work.rejected, work.empty
        )
        fields = scored(work.fields, cells)
        smear = Smear(
            id=work.id,
            fields=fields,
            cells=cells,
            differential=differential(cell.cls for cell in cells),
            flags=flags(rules, evidence(model, site, fields, cells, figures)),
            quality=figures,
            model_version=model.card.version,
            engine=model.engine.name,
            untrained_classes=_untrained(model),
            limits=class_limits(rules),
            pseudo=plan.pseudo if options.pseudo is None else options.pseudo,
            synthetic=plan.synthetic if options.synthetic is None else options.synthetic,
        )
        self._store.commit(smear, work.traces)
        self._overlays.keep(smear, model)
        log.info("smear.analysed", smear_id=smear.id, cells=len(cells), flags=[flag.id for flag in smear.flags])
        return smear

    def _take(self, work: Work, image: PlannedImage, model: LoadedModel) -> None:
        """Find and crop the cells of one image; the pictures are kept at once, the pixels are not."""
        if image.kind is ImageKind.SLIDE:
            self._take_slide(work, image.path, model)
            return
        data = read_limited(image.path)
        pixels = load_image(data)
        digest = hashlib.sha256(data).hexdigest()
        height, width = pixels.shape[:2]
        work.judge(pixels)
        if image.kind is ImageKind.CELL:
            self._store.put_cell(work.id, cell_id(len(work.waiting)), pixels, None)
            whole = (0, 0, width, height)
            work.waiting.append(Waiting(None, whole, str(image.path), Trace(digest, None, None)))
            work.crops.append(model.cut(pixels, None))
            return
        self._take_field(work, pixels, find_cells(model, pixels), digest, path=image.path)

    def _take_slide(self, work: Work, path: Path, model: LoadedModel) -> None:
        """Look at fields all over a slide until enough white cells are found."""
        before = len(work.waiting)
        with Slide(path) as slide:
            self._look_over(work, path, slide, model)
            if len(work.waiting) == before and work.gamuts:
                work.look_at_empty(sampled(slide))

    def _look_over(self, work: Work, path: Path, slide: Slide, model: LoadedModel) -> None:
        policy = load_analysis_policy(self._home)
        digest = file_sha256(path)
        for number, (tile, pixels) in enumerate(slide_fields(slide)):
            if number >= policy.slide_fields:
                work.warnings.append(f"{path.name}: only {number} fields of the slide were looked at.")
                return
            found = find_cells(model, pixels)
            own = FoundCells(tuple(cell for cell in found.cells if tile.owns(cell.box)), found.rejected)
            if own.cells:
                work.judge(pixels)
                self._take_field(work, pixels, own, digest, path=path, origin=(tile.x, tile.y), microns=slide.microns)
            if len(work.crops) >= _BATCH:
                read(model, work)
            if work.white() >= policy.slide_cells:
                return

    def _take_field(
        self, work: Work, pixels: Pixels, found: FoundCells, digest: str, *, path: Path,
        origin: tuple[int, int] | None = None, microns: float | None = None,
    ) -> None:  # fmt: skip
        height, width = pixels.shape[:2]
        index = len(work.fields)
        self._store.put_field(work.id, index, pixels)
        strange = None if found.cells else work.look_at_empty(pixels)
        work.fields.append(
            FieldImage(path=str(path), width=width, height=height, origin=origin, ood_score=strange, microns=microns)
        )
        work.rejected.update(found.rejected)
        for cell in found.cells:
            crop_box = self._store.put_cell(work.id, cell_id(len(work.waiting)), pixels, cell.box)
            trace = Trace(digest, _moved(cell.box, origin), crop_box)
            work.waiting.append(Waiting(index, cell.box, None, trace, edge=cell.edge, reading=cell.reading))
            if cell.reading is None:
                work.crops.append(cell.crop)


def known_gamuts(model: LoadedModel, site: SiteRanges) -> tuple[Gamut, ...]:
    """Return the dyes of this site's labelled images and of the laboratories that taught the model."""
    taught = [one.gamut for one in model.laboratories]
    return tuple(one for one in (site.gamut, *taught) if one is not None)


def evidence(
    model: LoadedModel, site: SiteRanges, fields: Sequence[FieldImage], cells: tuple[Cell, ...], figures: Quality
) -> Evidence:
    """Return a smear as the rules see it, with what this site and its model know."""
    return Evidence(
        cells,
        figures,
        ranges=site.fields if fields else site.cells,
        dye=known_dye(model.laboratories, fields=bool(fields)),
        compared=model.compared,
        fields=len(fields),
        promise=model.adapter.promise,
    )


def _moved(box: Box, origin: tuple[int, int] | None) -> Box:
    """From pixels of a field to pixels of the file that it was cut from."""
    x, y = origin or (0, 0)
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _smear_id(plan: SmearPlan) -> str:
    """The same images are the same smear, whenever and wherever they are analysed."""
    digest = hashlib.sha256()
    for image in plan.images:
        try:
            digest.update(bytes.fromhex(file_sha256(image.path)))
        except DataInvalidError:
            digest.update(image.path.name.encode())
    return f"S-{digest.hexdigest()[:16]}"


def _untrained(model: LoadedModel) -> tuple[CellClass, ...]:
    missing = {cls for cls in _EXPECTED if cls not in model.classes} | set(model.card.untrained_classes)
    return tuple(cls for cls in CellClass if cls in missing and cls not in model.classes)
