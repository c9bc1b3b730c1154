"""Writes an evaluation as a folder: tables, charts and one page to look at; whole, or not at all."""

import base64
import csv
import html
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client_node.analysis.evaluation import svg
from client_node.analysis.evaluation.service import Judged, Judgement, figures
from client_node.datasets.images import read_limited
from shared.contracts.analysis import EvaluationOutput
from shared.contracts.errors import HematovisionError, UsageError
from shared.contracts.ontology import CellClass
from shared.space import space_guard
from shared.statistics import clopper_pearson
from shared.vision import preprocessing
from shared.vision.images import load_image

MARKER: Final = "results.json"
_MOST_MISTAKES: Final = 12
_MOST_SKIPPED: Final = 20
_PICTURE: Final = 112


def write_folder(judgement: Judgement, out: Path) -> EvaluationOutput:
    """Write ``out`` (replacing an evaluation that is there) and return the figures in it.

    ``table.csv``, ``predictions.csv``, ``results.json``, ``confusion.svg``, ``reliability.svg``, ``risk-coverage.svg``
    and ``index.html``, which holds all of it and needs no other file.

    Raises:
        UsageError: ``out`` is something else than an evaluation.
        NoSpaceError: the disk is full; what was there stays.
    """
    check_out(out)
    output = figures(judgement)
    with space_guard(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        try:
            _fill(part, judgement, output)
            part.chmod(0o755)
            if out.exists():
                shutil.rmtree(out)
            part.replace(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return output


def check_out(out: Path) -> None:
    """Raise `UsageError` where ``out`` holds anything but an earlier evaluation."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (out / MARKER).is_file():
        raise UsageError(f"{out} is there already and holds no evaluation: name another folder with --out.")


def _fill(folder: Path, judgement: Judgement, output: EvaluationOutput) -> None:
    names, matrix = confusion(output)
    sure = np.array([one.reading.probability for one in judgement.cells], np.float64)
    hits = np.array([one.right for one in judgement.cells], np.bool_)
    charts = {
        "confusion": svg.confusion_svg(matrix, [cls.info.name for cls in names]),
        "reliability": svg.reliability_svg(sure, hits, error=output.ece),
        "risk-coverage": svg.risk_coverage_svg(sure, hits),
    }
    for name, chart in charts.items():
        (folder / f"{name}.svg").write_text(chart)
    (folder / MARKER).write_text(output.model_dump_json(by_alias=True, indent=1))
    rows = table(output)
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([_HEAD, *rows])
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(_predictions(judgement.cells))
    (folder / "index.html").write_text(_page(judgement, output, rows, charts))


def confusion(output: EvaluationOutput) -> tuple[list[CellClass], NDArray[np.int64]]:
    """Return the classes that occur, in reporting order, and the counts (truth × prediction)."""
    names = [cls for cls in CellClass if cls in output.per_class]
    matrix = np.zeros((len(names), len(names)), np.int64)
    for truth, row in output.confusion.items():
        for said, count in row.items():
            matrix[names.index(truth), names.index(said)] = count
    return names, matrix


_HEAD: Final = (
    "class", "precision", "precision low", "precision high", "recall", "recall low", "recall high", "F1", "cells",
)  # fmt: skip
Line = tuple[str, ...]


def table(output: EvaluationOutput) -> list[Line]:
    """Return the lines below `_HEAD`: precision and recall with exact 95 % intervals; empty where nothing was said."""
    names, matrix = confusion(output)
    lines: list[Line] = []
    for place, cls in enumerate(names):
        hits, said, there = int(matrix[place, place]), int(matrix[:, place].sum()), int(matrix[place].sum())
        f1 = output.per_class[cls].f1
        lines.append((cls.info.name, *_share(hits, said), *_share(hits, there), f"{f1:.3f}", str(there)))
    return lines


def _share(hits: int, total: int) -> tuple[str, str, str]:
    if not total:
        return "", "", ""
    low, high = clopper_pearson(hits, total)
    return f"{hits / total:.3f}", f"{low / 100:.3f}", f"{high / 100:.3f}"


def _predictions(cells: Sequence[Judged]) -> list[Line]:
    rows: list[Line] = [("path", "xmin", "ymin", "xmax", "ymax", "label", "said", "probability", "set", "unlike")]
    for one in cells:
        box = tuple(str(value) for value in one.box) if one.box else ("", "", "", "")
        members = " ".join(cls.value for cls in one.reading.prediction_set)
        said = (one.reading.cls.value, f"{one.reading.probability:.4f}", members, f"{one.reading.ood_score:.3f}")
        rows.append((one.shown, *box, one.truth.value, *said))
    return rows


def _page(judgement: Judgement, output: EvaluationOutput, rows: Sequence[Line], charts: dict[str, str]) -> str:
    facts = {
        "Cells": str(output.n),
        "Accuracy": _percent(sum(one.right for one in judgement.cells), output.n),
        "Macro-F1": f"{output.macro_f1:.3f}",
        "Calibration error": f"{output.ece:.3f}",
        "True class in the set": f"{100 * output.coverage:.1f} %",
        "Mean set size": f"{output.mean_set_size:.2f}",
        "Unlike the training images": f"{100 * output.ood_fraction:.1f} %",
    }
    card, adapter = judgement.model.card, judgement.model.adapter
    about = {
        "Model": card.version,
        "Backbone": f"{card.recipe.backbone}, {card.recipe.input_size} pixels",
        "Runtime": output.engine,
        "Calibration": f"this site's, on {adapter.cells} cells" if adapter.cells else "the model's own defaults",
        "Prediction sets": f"for {100 * adapter.level:g} % of cells",
    }
    return _PAGE.format(
        style=_STYLE,
        facts="".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts.items()),
        about="".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in about.items()),
        table=_table(rows),
        confusion=charts["confusion"],
        reliability=charts["reliability"],
        risk=charts["risk-coverage"],
        mistakes=_mistakes(judgement.cells),
        skipped=_skipped(output),
    )


def _percent(hits: int, total: int) -> str:
    low, high = clopper_pearson(hits, total)
    return f"{100 * hits / total:.1f} % ({low:.1f}–{high:.1f})"


def _table(rows: Sequence[Line]) -> str:
    body = []
    for name, *values, f1, cells in rows:
        precision, recall = values[:3], values[3:]
        shown = [
            f"{value[0]} <small>{value[1]}–{value[2]}</small>" if value[0] else "–" for value in (precision, recall)
        ]
        body.append(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{shown[0]}</td><td>{shown[1]}</td><td>{f1}</td>'
            f"<td>{cells}</td></tr>"
        )
    return "".join(body)


def _mistakes(cells: Sequence[Judged]) -> str:
    wrong = sorted((one for one in cells if not one.right), key=lambda one: -one.reading.probability)
    if not wrong:
        return "<p>There is none.</p>"
    shown = []
    for one in wrong[:_MOST_MISTAKES]:
        picture = _picture(one)
        if picture is not None:
            said = f"{one.reading.cls.info.name} {one.reading.probability:.2f}"
            words = f"is {one.truth.info.name}, was called {said}"
            shown.append(
                f'<figure><img src="{picture}" alt="A cell that {html.escape(words)}" width="{_PICTURE}" '
                f'height="{_PICTURE}"><figcaption><b>{html.escape(one.truth.info.name)}</b><br>called '
                f"{html.escape(said)}<br><small>{html.escape(one.shown)}</small></figcaption></figure>"
            )
    more = f"<p>{len(wrong)} in all; see predictions.csv.</p>" if len(wrong) > len(shown) else ""
    return f'<div class="mistakes">{"".join(shown)}</div>{more}'


def _picture(one: Judged) -> str | None:
    try:
        crop = preprocessing.cell_crop(load_image(read_limited(one.path)), one.box)
    except HematovisionError:
        return None
    buffer = io.BytesIO()
    Image.fromarray(preprocessing.scale(crop, _PICTURE)).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _skipped(output: EvaluationOutput) -> str:
    if not output.skipped:
        return "<p>Nothing was left out.</p>"
    lines = [f"<li>{html.escape(one.path)}: {html.escape(one.reason)}</li>" for one in output.skipped[:_MOST_SKIPPED]]
    more = len(output.skipped) - len(lines)
    return f"<ul>{''.join(lines)}</ul>" + (f"<p>And {more} more; see results.json.</p>" if more else "")


_STYLE: Final = """
:root{color-scheme:light dark;--ink:#22262b;--quiet:#6a717a;--line:#d9dde1;--paper:#fbfbfa}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8ea;--quiet:#9aa1a9;--line:#34393f;--paper:#191b1e}}
*{box-sizing:border-box}
body{font:14px/1.4 system-ui,sans-serif;font-variant-numeric:tabular-nums;color:var(--ink);background:var(--paper);
max-width:1080px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:28px;margin:0 0 4px}h2{font-size:20px;margin:40px 0 12px}
p{max-width:64ch}small,.quiet,dt{color:var(--quiet)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:16px;margin:20px 0}
dd{margin:0;font-size:20px}dl.about dd{font-size:14px}
table{border-collapse:collapse;min-width:min(100%,560px)}
th,td{text-align:right;padding:6px 12px;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;padding-left:0;font-weight:500}
thead th{color:var(--quiet);font-weight:400}
.wide{overflow-x:auto}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:24px}
.charts svg{max-width:100%;height:auto}
.mistakes{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:20px}
figure{margin:0}figure img{background:#2a2a2c;display:block;margin-bottom:6px}figcaption{overflow-wrap:anywhere}
ul{padding-left:20px}@media print{body{background:none;padding:0}figure,svg,tr{break-inside:avoid}}
"""
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title><style>{style}</style></head><body>
<main>
<h1>Evaluation</h1>
<p class="quiet">What the model says of labelled cells. Intervals are exact, 95 % (Clopper–Pearson).</p>
<dl>{facts}</dl><dl class="about">{about}</dl>
<section><h2>By class</h2><div class="wide"><table>
<thead><tr><th scope="col">Class</th><th scope="col">Precision</th><th scope="col">Recall</th><th scope="col">F1</th>
<th scope="col">Cells</th></tr></thead><tbody>{table}</tbody></table></div></section>
<section><h2>What was taken for what</h2>
<p class="quiet">Rows are what a cell is, columns what the model said.</p><div class="wide">{confusion}</div></section>
<section><h2>Can its confidence be trusted?</h2><div class="charts"><div>{reliability}</div><div>{risk}</div></div>
<p class="quiet">Left: each circle is a bin of confidence with its number of cells; on the dashed line confidence is
honest. Right: the share of errors that is left when only the surest cells are answered and the rest go to a
reader.</p></section>
<section><h2>The surest mistakes</h2>{mistakes}</section>
<section><h2>Left out</h2>{skipped}</section>
</main></body></html>
"""
