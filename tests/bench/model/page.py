"""Writes ``docs/model-quality.md`` from what was measured."""

from dataclasses import dataclass
from typing import Final

from tests.bench.model.evaluate import Row
from tests.bench.model.speed import cpu_flags

_METHOD: Final = """\
One model (`tf_efficientnet_lite0`, 144 px, every layer learns, at most 2,300 images, 12 epochs) serves both sources.
Figures are of its ONNX file, without averaging over looks, on groups that nothing was trained on or chosen by.
Intervals are exact (Clopper–Pearson) for shares, by bootstrap over cells for macro-F1, balanced accuracy and AUROC;
for speed they are the least and greatest. A missed goal says **no**.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together."""

    title: str
    rows: list[Row]


def page(sections: list[Section], *, quick: bool, seconds: float) -> str:
    """Return the Markdown page."""
    how = "`make bench-model ARGS=--quick`" if quick else "`make bench-model`"
    lines = [
        "# How good the model is",
        "",
        f"Written by {how} from the real smears; {seconds / 60:.0f} minutes, models already trained not trained again.",
        f"{cpu_flags()}.",
        "",
        _METHOD,
    ]
    for section in sections:
        lines += [
            f"## {section.title}",
            "",
            "| measure | value | 95 % interval | n | goal | holds |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_line(row) for row in section.rows]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row) -> str:
    interval = "" if row["low"] is None else f"{row['low']:.3f}–{row['high']:.3f}"
    holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]  # type: ignore[index]  # holds is one of the three
    goal = "" if row["goal"] is None else f"{row['goal']:g}"
    return f"| {row['measure']} | {row['value']:.3f} | {interval} | {row['n']} | {goal} | {holds} |"
