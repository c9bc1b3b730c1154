"""Speed and size of a model folder on one core: a field with all steps, the analysis beside the bare network, INT8.

The variants that a row compares run in turn within one run, because the machines are noisy; values are medians, with
the least and greatest beside them. ``python -m tests.bench.model.speed MODEL --data DATA`` prints all rows.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from client_node.analysis.model import LoadedModel, load_model
from client_node.analysis.service import Analyser, Options
from client_node.analysis.smears import SmearKind
from client_node.datasets.labelled import as_predicted
from shared.contracts.ontology import parse_class
from shared.logging import configure_logging
from shared.vision import backbones, preprocessing
from shared.vision.engine import Engine, OnnxEngine, Outputs
from shared.vision.images import load_image
from shared.vision.precision import INT8_FILE, ONNX_FILE, Precision
from shared.vision.quantise import quantise
from tests.bench.model.bench import Bench
from tests.bench.model.dense import dense_field, drawn_field
from tests.bench.model.machine import cpu_flags
from tests.bench.model.rows import Row
from tests.bench.model.section import Measured, Section
from tests.client_node.analysis.factories import save

Floats = NDArray[np.float32]
T = TypeVar("T")
FIELD_GOAL, FIELD_STRETCH = 150.0, 60.0
RATIO_GOAL, RATIO_STRETCH = 0.7, 0.85
INT8_SPEED_GOAL, INT8_SPEED_STRETCH = 1.3, 2.0
INT8_LOSS_GOAL, INT8_LOSS_STRETCH = 1.0, 0.3
LEAST_CELLS: Final = 20
_ROOT: Final = Path(__file__).resolve().parents[3]
_CALIBRATION: Final = 128


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One measured figure."""

    measure: str
    value: float
    least: float
    greatest: float
    n: int
    goal: float
    stretch: float
    at_most: bool
    """Whether less is better."""
    note: str

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal


def all_rows(model_dir: Path, data: Path | None, *, split: str = "test", repeats: int = 15) -> list[SpeedRow]:
    """Return every row for the model in ``model_dir``; those on real smears need the folder ``data``.

    Raises `RuntimeError` unless OMP_NUM_THREADS is 1: the goals are for one core.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise RuntimeError("set OMP_NUM_THREADS=1: the goals are for one core")
    rows = [analysis_row(model_dir, data, repeats=repeats)]
    if data is not None:
        rows.append(field_row(model_dir, _fields(data, "train", 12), repeats=max(3, repeats // 3)))
        rows += int8_rows(model_dir, data, split=split, repeats=repeats)
    return rows


def field_row(model_dir: Path, fields: Sequence[Path], *, repeats: int = 5) -> SpeedRow:
    """Return milliseconds a real field from its file to the stored analysis; the model is loaded already."""
    taken: list[float] = []
    cells = 0
    with tempfile.TemporaryDirectory(prefix="hematovision-speed-") as home:
        analyser = Analyser(Path(home), model_dir=model_dir)
        options = Options(kind=SmearKind.FIELDS)
        analyser.analyze(fields[:1], options=options)
        for number in range(repeats):
            for path in fields:
                begin = time.perf_counter()
                (smear,) = analyser.analyze([path], options=options).smears
                taken.append((time.perf_counter() - begin) * 1e3)
                shutil.rmtree(Path(home) / "smears")  # a new smear each time
                cells += len(smear.cells) if number == 0 else 0
    with Image.open(fields[0]) as image:
        size = f"{image.width}×{image.height}"
    note = f"{len(fields)} real {size} fields, {cells / len(fields):.1f} cells each, {analyser.model.engine.name}"
    return _row("field, all steps, one core (ms)", taken, FIELD_GOAL, FIELD_STRETCH, note, at_most=True)


def analysis_row(model_dir: Path, data: Path | None, *, repeats: int = 15) -> SpeedRow:
    """Return how fast a whole analysis of a dense field is beside the network alone on the very same crops.

    Raises `RuntimeError` if fewer than `LEAST_CELLS` cells are found in it.
    """
    pixels = drawn_field(24) if data is None else dense_field(data)
    ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="hematovision-speed-") as home:
        path = save(Path(home) / "dense.png", pixels)
        analyser = Analyser(Path(home), model_dir=model_dir)
        options = Options(kind=SmearKind.FIELDS)
        batches, found = _asked(Path(home), model_dir, path)
        if found < LEAST_CELLS:
            raise RuntimeError(f"only {found} cells were found in the dense field: {LEAST_CELLS} are asked for")
        for _ in range(repeats + 1):
            whole, _ = _timed(lambda: analyser.analyze([path], options=options))
            bare, _ = _timed(lambda: [analyser.model.engine.run(batch) for batch in batches])
            ratios.append(bare / whole)
            shutil.rmtree(Path(home) / "smears")  # a new smear each time
    crops, kind = sum(map(len, batches)), "drawn" if data is None else "real cells in one"
    note = (
        f"{kind} 640×480 field, {found} cells found; the bare forward runs the same {crops} crops in the same "
        f"{len(batches)} batches; {analyser.model.engine.name}"
    )
    return _row("analysis beside the bare forward", ratios[1:], RATIO_GOAL, RATIO_STRETCH, note, at_most=False)


class _Listening:
    """An engine that takes note of what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.batch = engine.name, engine.batch
        self.asked: list[Floats] = []

    def run(self, batch: Floats) -> Outputs:
        """See `Engine`."""
        self.asked.append(batch)
        return self._engine.run(batch)


def _asked(home: Path, model_dir: Path, path: Path) -> tuple[list[Floats], int]:
    """Return the batches that the network is asked in the analysis of a field, and how many cells are found."""
    analyser = Analyser(home, model_dir=model_dir)
    listening = _Listening(analyser.model.engine)
    analyser._model = replace(analyser.model, engine=listening)
    (smear,) = analyser.analyze([path], options=Options(kind=SmearKind.FIELDS)).smears
    shutil.rmtree(home / "smears")
    return listening.asked, len(smear.cells)


def int8_rows(model_dir: Path, data: Path, *, split: str = "test", repeats: int = 15) -> list[SpeedRow]:
    """Return the speed-up and the paired loss of accuracy of INT8, calibrated on cells of the training split."""
    model = load_model(model_dir, precision=Precision.FP32)
    fp32 = OnnxEngine(model_dir / ONNX_FILE, len(model.classes), device="cpu")
    calibration, _ = labelled(model, data, "train", most=_CALIBRATION)
    images, truths = labelled(model, data, split)
    with tempfile.TemporaryDirectory(prefix="hematovision-speed-") as folder:
        file = Path(folder) / INT8_FILE
        batches = (calibration[k : k + fp32.batch] for k in range(0, len(calibration), fp32.batch))
        quantise(model_dir / ONNX_FILE, file, batches)
        int8 = OnnxEngine(file, len(model.classes), device="cpu")
        sizes = (model_dir / ONNX_FILE).stat().st_size / 1e6, file.stat().st_size / 1e6
        one, two = (replace(model, engine=engine) for engine in (fp32, int8))
        batch = images[: fp32.batch]
        ratios, times = [], ([], [])  # type: tuple[list[float], tuple[list[float], list[float]]]
        for number in range(repeats + 2):
            plain, _ = _timed(lambda: fp32.run(batch))
            small, _ = _timed(lambda: int8.run(batch))
            if number > 1:
                ratios.append(plain / small)
                times[0].append(plain / len(batch) * 1e3)
                times[1].append(small / len(batch) * 1e3)
        hits = [_forward(this, images).argmax(axis=1) == truths for this in (one, two)]
    lost, won = int((hits[0] & ~hits[1]).sum()), int((~hits[0] & hits[1]).sum())
    p_value = float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    points = (lost - won) / len(truths) * 100
    spread = 196 * np.sqrt(max(lost + won - (lost - won) ** 2 / len(truths), 0.0)) / len(truths)
    speed = f"{np.median(times[0]):.2f} ms a crop in fp32, {np.median(times[1]):.2f} in INT8; {cpu_flags()}"
    paired = (
        f"{split} split: fp32 {hits[0].mean():.4f}, INT8 {hits[1].mean():.4f}; right in fp32 only {lost}, in INT8 only "
        f"{won}, McNemar p = {p_value:.2f}; {sizes[0]:.1f} MB, {sizes[1]:.1f} MB; limits: 95 % of the difference"
    )
    loss = SpeedRow(
        "INT8, paired loss of accuracy (points)", points, points - spread, points + spread, len(truths),
        INT8_LOSS_GOAL, INT8_LOSS_STRETCH, at_most=True, note=paired,
    )  # fmt: skip
    return [
        _row("INT8, speed-up over fp32 ONNX", ratios, INT8_SPEED_GOAL, INT8_SPEED_STRETCH, speed, at_most=False),
        loss,
    ]


def labelled(
    model: LoadedModel, data: Path, split: str, *, most: int | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the network's inputs and class positions of a split's cells that the model can predict.

    ``most``: take only so many, spread over the split, white cells of all sources mixed.
    """
    with (data / "labels.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == split and row["kind"] != "field"]
    known: list[tuple[dict[str, str], int]] = []
    for row in rows:
        cls = parse_class(row["class"]) if row["class"] else None
        truth = as_predicted(cls, model.classes) if cls else None
        if truth is not None:
            known.append((row, model.classes.index(truth)))
    order = np.random.default_rng(0).permutation(len(known))[:most]
    crops, truths = [], []
    for number in sorted(order, key=lambda place: known[place][0]["path"]):
        row, truth_position = known[number]
        corners = [row[name] for name in ("xmin", "ymin", "xmax", "ymax")]
        box = tuple(round(float(value)) for value in corners) if all(corners) else None
        pixels = load_image(data / row["path"])
        crops.append(preprocessing.cell_crop(pixels, box))  # type: ignore[arg-type]  # four of them
        truths.append(truth_position)
    shuffled = np.random.default_rng(1).permutation(len(crops))
    return _inputs(model, crops)[shuffled], np.array(truths, np.int64)[shuffled]


def _fields(data: Path, split: str, most: int) -> list[Path]:
    with (data / "labels.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == split and row["kind"] == "field"]
    return [data / path for path in sorted({row["path"] for row in rows})[:most]]


def _inputs(model: LoadedModel, crops: Sequence[NDArray[np.uint8]]) -> Floats:
    recipe = model.card.recipe
    entry = backbones.get(recipe.backbone)
    return np.stack([preprocessing.to_input(crop, recipe.input_size, entry.mean, entry.std) for crop in crops])


def _forward(model: LoadedModel, inputs: Floats) -> Floats:
    size = model.engine.batch
    return np.concatenate([model.engine.run(inputs[k : k + size]).logits for k in range(0, len(inputs), size)])


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def _row(measure: str, values: Sequence[float], goal: float, stretch: float, note: str, *, at_most: bool) -> SpeedRow:
    middle = float(np.median(values))
    return SpeedRow(measure, middle, min(values), max(values), len(values), goal, stretch, at_most, note)


def measure(bench: Bench) -> Measured:
    """Measure speed in a process of its own, which has one thread from the start."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(bench.model("both")), "--data", str(bench.data), "--split", "test",
         "--repeats", "9"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HEMATOVISION_DEVICE": "cpu"}, check=True, stdout=subprocess.PIPE,
        text=True, cwd=_ROOT,
    )  # fmt: skip
    found = json.loads(done.stdout)
    rows: list[Row] = [
        {"measure": one["measure"], "value": one["value"], "low": one["least"], "high": one["greatest"], "n": one["n"],
         "goal": one["goal"], "holds": one["holds"]}
        for one in found
    ]  # fmt: skip
    return Measured(rows, [f"{one['measure']}: {one['note']}." for one in found])


SECTION: Final = Section(
    name="speed",
    title="Speed, on one core",
    measure=measure,
    version=1,
    seconds=(100, 100),
    models=("both",),
    method=(
        "One thread. What a row compares runs in turn within one run; values are medians, with the least and the "
        "greatest in place of an interval. INT8 is calibrated on training cells and judged on test cells, pair by pair."
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.model.speed", description=__doc__)
    parser.add_argument("model", type=Path, help="a model's folder")
    parser.add_argument("--data", type=Path, help="the folder of real smears")
    parser.add_argument("--split", default="val", help="whose cells judge INT8")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args(argv)
    configure_logging("bench", level="WARNING")  # to stderr: the rows stand alone on stdout
    rows = all_rows(arguments.model, arguments.data, split=arguments.split, repeats=arguments.repeats)
    sys.stdout.write(json.dumps([asdict(row) | {"holds": row.holds} for row in rows], indent=2, ensure_ascii=False))
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
