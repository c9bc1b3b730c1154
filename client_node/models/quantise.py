"""Makes the INT8 form of a model on the node that will run it, and keeps it only if it is worth having there.

Ranges come from the site's training cells; whether it is as good is asked of its validation cells, cell by cell beside
fp32, and whether it is faster of this machine's CPU. The signed ``model.onnx`` is never touched.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest

from client_node.analysis.model import LoadedModel, load_model
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import LabelledCell
from client_node.home import NodeHome
from client_node.ipc import Lease
from client_node.models import store
from client_node.models.trial import Run, feed, fit
from client_node.policy import load_policy
from shared.contracts.errors import ConflictError, DataInvalidError, ModelInvalidError, NoLabelsError, NotFoundError
from shared.crypto.pki import write_private
from shared.space import space_guard
from shared.vision.engine import CPU_BATCH, Engine, OnnxEngine
from shared.vision.images import load_image
from shared.vision.precision import (
    FACTS_FILE,
    INT8_FILE,
    ONNX_FILE,
    Comparison,
    Int8Facts,
    Precision,
    precision_of,
    sha256_of,
    switched,
    whole_file,
)
from shared.vision.quantise import quantise

Floats = NDArray[np.float32]
MOST_LOSS: Final = 0.01
LEAST_SPEED_UP: Final = 1.1
LEAST_CELLS: Final = 50
"""Fewer validation cells could not show a loss of a few points."""
_CALIBRATION_CELLS: Final = 128
_LEAST_CALIBRATION: Final = 16
_TIMED_RUNS: Final = 15
_TRYING: Final = ".trying-int8"
Progress = Callable[[int, int], None]

log = structlog.get_logger(__name__)


class QuantiseOutput(BaseModel):
    """The JSON of `model quantise`."""

    model_config = ConfigDict(frozen=True)

    version: str
    kept: bool
    reason: str
    comparison: Comparison
    calibration_cells: int
    bytes_fp32: int
    bytes_int8: int

    def text(self) -> str:
        """Return what a person reads."""
        found = self.comparison
        return (
            f"{self.version}: accuracy {found.accuracy_fp32:.3f} in fp32, {found.accuracy_int8:.3f} in INT8, "
            f"on the same {found.n} validation cells\n"
            f"  right in fp32 only {found.lost}, in INT8 only {found.won} (p = {found.p_value:.2f})\n"
            f"  {found.ms_fp32:.1f} ms a cell in fp32, {found.ms_int8:.1f} ms in INT8: {found.speed_up:.2f} times as "
            f"fast; {self.bytes_fp32 / 1e6:.1f} MB, {self.bytes_int8 / 1e6:.1f} MB\n"
            f"  {self.reason}"
        )


def quantise_model(
    home: NodeHome,
    version: str | None = None,
    *,
    most_loss: float = MOST_LOSS,
    least_speed_up: float = LEAST_SPEED_UP,
    progress: Progress | None = None,
) -> QuantiseOutput:
    """Quantise ``version`` (default: the current one), compare, and let INT8 run from now on if it is good enough.

    ``most_loss``: accuracy that may be lost, as a fraction of the validation cells (0.01 = one point).

    Raises:
        NoLabelsError: the site has too few labelled cells to calibrate with or to judge by.
        NotFoundError, ModelInvalidError: the model is not here, or has no ONNX file.
    """
    version = _version(home, version)
    folder = home.model(version)
    plain = _fp32(folder)
    inputs = calibration_inputs(home, plain)
    whole = whole_file(folder)
    source = sha256_of(whole)
    trying = folder / _TRYING
    try:
        with space_guard(folder):
            trying.mkdir(mode=0o700, exist_ok=True)
            batches = (inputs[k : k + CPU_BATCH] for k in range(0, len(inputs), CPU_BATCH))
            quantise(whole, trying / INT8_FILE, _counted(batches, len(inputs), progress))
        small = replace(plain, engine=OnnxEngine(trying / INT8_FILE, len(plain.classes), device="cpu"))
        runs = [Run(one, plain.adapter.view) for one in (plain, small)]
        cells = feed(home, runs)
        if len(cells) < LEAST_CELLS:
            raise NoLabelsError(f"INT8 is judged on at least {LEAST_CELLS} validation cells; import more labels.")
        seconds = speeds(plain.engine, small.engine, inputs[:CPU_BATCH])
        found = compare(runs[0].hits(cells), runs[1].hits(cells), seconds)
        output = QuantiseOutput(
            version=version,
            kept=found.loss <= most_loss + 1e-9 and found.speed_up >= least_speed_up,
            reason=_reason(found, most_loss, least_speed_up),
            comparison=found,
            calibration_cells=len(inputs),
            bytes_fp32=whole.stat().st_size,
            bytes_int8=(trying / INT8_FILE).stat().st_size,
        )
        if output.kept:
            with store.alone(home), space_guard(folder):
                _keep(home, folder, runs[1], cells, source=source, output=output)
    finally:
        shutil.rmtree(trying, ignore_errors=True)
    log.info("model.quantised", version=version, kept=output.kept, reason=output.reason)
    return output


def switch_precision(home: NodeHome, precision: Precision, version: str | None = None) -> Precision:
    """Let the fp32 file or its INT8 form run; return what runs now.

    Raises:
        NotFoundError: the model is not here, or has no INT8 form.
    """
    folder = home.model(_version(home, version))
    with store.alone(home):
        facts = switched(folder, precision)
        if facts is not None:
            write_private(folder / FACTS_FILE, facts.model_dump_json().encode())
    return precision_of(folder)


def _fp32(folder: Path) -> LoadedModel:
    """Load the fp32 form on the CPU: INT8 is for machines without a GPU, and is compared as it would run there."""
    model = load_model(folder, precision=Precision.FP32)
    if not (folder / ONNX_FILE).is_file():
        raise ModelInvalidError("This model has no ONNX file, and only that can be quantised.")
    return replace(model, engine=OnnxEngine(whole_file(folder), len(model.classes), device="cpu"))


def calibration_inputs(home: NodeHome, model: LoadedModel) -> Floats:
    """Return normalised crops of some of the site's training cells, the classes in turn (N × 3 × S × S).

    They are cut and coloured as this site's cells are shown to the model, so that the ranges are those of analysis.

    Raises:
        NoLabelsError: there are too few.
    """
    policy, lease = load_policy(home), Lease(home.path)
    cells = [
        cell
        for cell in Catalogue(home.path).cells(split="train", classes=model.classes)
        if policy.allows_source(cell.source)
    ]
    inputs: list[Floats] = []
    for cell in _in_turn(cells):
        lease.pause_point()
        try:
            inputs += model.inputs([model.cut(load_image(cell.path), cell.box)])
        except DataInvalidError:
            continue
        if len(inputs) == _CALIBRATION_CELLS:
            break
    if len(inputs) < _LEAST_CALIBRATION:
        raise NoLabelsError(
            f"INT8 is calibrated on at least {_LEAST_CALIBRATION} labelled training cells of this site; import some."
        )
    return np.stack(inputs)


def compare(fp32: NDArray[np.bool_], int8: NDArray[np.bool_], seconds: tuple[float, float]) -> Comparison:
    """Compare hits on the same N cells; ``seconds`` a cell are those of `speeds`."""
    lost, won = int((fp32 & ~int8).sum()), int((~fp32 & int8).sum())
    return Comparison(
        n=len(fp32),
        accuracy_fp32=float(fp32.mean()),
        accuracy_int8=float(int8.mean()),
        lost=lost,
        won=won,
        p_value=float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
        ms_fp32=seconds[0] * 1e3,
        ms_int8=seconds[1] * 1e3,
    )


def speeds(fp32: Engine, int8: Engine, batch: Floats) -> tuple[float, float]:
    """Return the median seconds an image of two engines, timed in turn: other work then slows both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(_TIMED_RUNS + 1):
        for engine, times in zip((fp32, int8), taken, strict=True):
            begin = time.perf_counter()
            engine.run(batch)
            if number:  # the first one warms up
                times.append((time.perf_counter() - begin) / len(batch))
    return float(np.median(taken[0])), float(np.median(taken[1]))


def _version(home: NodeHome, version: str | None) -> str:
    found = version or store.current_version(home)
    if found is None:
        raise NotFoundError("No model is installed yet: run the node until the centre has promoted one.")
    if Path(found).name != found or not store.present(home, found):
        raise NotFoundError(f"The model {found} is not on this node: see `hematovision-node status`.")
    return found


def _in_turn(cells: list[LabelledCell]) -> Iterator[LabelledCell]:
    """Return the cells class by class in turn: rare classes have ranges of their own."""
    queues: dict[str, list[LabelledCell]] = {}
    for cell in reversed(cells):  # ordered by hash, which is as good as shuffled
        queues.setdefault(cell.cls.value, []).append(cell)
    while queues:
        for name in sorted(queues):
            yield queues[name].pop()
        queues = {name: queue for name, queue in queues.items() if queue}


def _counted(batches: Iterator[Floats], total: int, progress: Progress | None) -> Iterator[Floats]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        if progress is not None:
            progress(done, total)


def _reason(found: Comparison, most_loss: float, least_speed_up: float) -> str:
    if found.loss > most_loss + 1e-9:
        lost, most = found.loss * 100, most_loss * 100
        return f"Not kept: INT8 loses {lost:.1f} points of accuracy, and {most:.1f} are allowed."
    if found.speed_up < least_speed_up:
        return f"Not kept: INT8 is {found.speed_up:.2f} times as fast here, and {least_speed_up:.2f} are asked for."
    return "Kept: INT8 analyses from now on; `hematovision-node model precision fp32` goes back."


def _keep(
    home: NodeHome, folder: Path, run: Run, cells: list[LabelledCell], *, source: str, output: QuantiseOutput
) -> None:
    """Move the file to its place; `int8.json` is written last, and only with it the form counts."""
    made = folder / _TRYING / INT8_FILE
    if sha256_of(whole_file(folder)) != source:
        raise ConflictError("The model was installed anew meanwhile: quantise it again.")
    fit(home, run, cells)
    facts = Int8Facts(
        source_sha256=source,
        int8_sha256=sha256_of(made),
        calibration_cells=output.calibration_cells,
        comparison=output.comparison,
        made_at=datetime.now(UTC),
    )
    made.replace(folder / INT8_FILE)
    write_private(folder / FACTS_FILE, facts.model_dump_json().encode())
