"""Pictures of what the analysis says of real images, to look at: boxes, classes, prediction sets and flags."""

import math
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from client_node.analysis.service import Analyser, Options
from client_node.analysis.smears import SmearKind
from shared.contracts.analysis import Cell, Smear
from tests.bench.model.say import say
from tests.bench.model.together import name_of, together

_INK, _PAPER, _SURE, _DOUBT = "#1d2430", "#ffffff", "#0b6e4f", "#b3261e"
_ACROSS: Final = 6
_CELL: Final = 200
_FOOT: Final = 62
_WIDE: Final = 110
"""Characters of a line below a picture."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A smear to draw: images with what is known of each, their kind, and the folder of the model that reads them."""

    paths: Sequence[Path]
    known: Sequence[str]
    kind: SmearKind
    model: Path


def pictures(folder: Path, smears: dict[str, Shown]) -> list[Path]:
    """Analyse each of the named smears and draw it into ``folder``; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, shown in smears.items():
        say(f"drawing {name}")
        with tempfile.TemporaryDirectory() as home, together(shown.paths, shown.known) as images:
            analyser = Analyser(Path(home), model_dir=shown.model)
            (smear,) = analyser.analyze(images, options=Options(kind=shown.kind)).smears
            picture = _gallery(smear) if shown.kind is SmearKind.GALLERY else _field(smear)
        file = folder / f"{name}.png"
        picture.save(file, optimize=True)
        drawn.append(file)
    return drawn


def _field(smear: Smear) -> Image.Image:
    """The first field of a smear, its cells boxed, above the smear's flags."""
    image = Image.open(smear.fields[0].path).convert("RGB")
    scale = max(1, round(1000 / image.width))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for cell in smear.cells:
        if cell.field != 0:
            continue
        box = tuple(scale * value for value in cell.box)
        pen.rectangle(box, outline=_colour(cell), width=3)
        _tag(pen, (box[0], box[1] - 24), f"{_called(cell)} {_left_open(cell)}", _colour(cell), image.width)
    return _above(image, _said(smear))


def _gallery(smear: Smear) -> Image.Image:
    """The cell images of a smear, each above what was said of it, and the smear's flags below."""
    rows = math.ceil(len(smear.cells) / _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * _CELL, rows * (_CELL + _FOOT)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, cell in enumerate(smear.cells):
        x, y = number % _ACROSS * _CELL, number // _ACROSS * (_CELL + _FOOT)
        with Image.open(cell.source or "") as image:
            sheet.paste(image.convert("RGB").resize((_CELL - 8, _CELL - 8)), (x + 4, y + 4))
        truth = name_of(Path(cell.source or "")).replace("_", " ")
        pen.text((x + 6, y + _CELL - 2), _called(cell), _colour(cell), font=_font(14))
        pen.text((x + 6, y + _CELL + 16), _left_open(cell), _colour(cell), font=_font(14))
        pen.text((x + 6, y + _CELL + 34), f"labelled: {truth}", _INK, font=_font(13))
    return _above(sheet, _said(smear))


def _colour(cell: Cell) -> str:
    return _DOUBT if cell.doubtful else _SURE


def _called(cell: Cell) -> str:
    return f"{cell.cls.info.name} {cell.probability:.2f}"


def _left_open(cell: Cell) -> str:
    members = "/".join(cls.info.mark for cls in cell.prediction_set) or "none"
    strange = f" unlike {cell.ood_score:.1f}" if cell.ood_score > 1.0 else ""
    return f"{{{members}}}{strange}"


def _said(smear: Smear) -> list[str]:
    lines = [f"{len(smear.cells)} cells, {smear.quality.white_cells} white; runtime {smear.engine}"]
    for flag in smear.flags:
        lines += textwrap.wrap(f"{flag.severity.value}: {flag.id}: {flag.evidence.text}", _WIDE)
    return lines if smear.flags else [*lines, "no flag"]


def _above(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    sheet = Image.new("RGB", (image.width, image.height + 16 + 22 * len(lines)), _PAPER)
    sheet.paste(image, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        # Pillow's own font has no en dash.
        pen.text((10, image.height + 8 + 22 * number), line.replace("–", "-"), _INK, font=_font(16))
    return sheet


def _tag(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: str, width: int) -> None:
    x, y = max(3.0, min(place[0], width - 3 - pen.textlength(text, font=_font(18)))), max(0.0, place[1])
    left, top, right, bottom = pen.textbbox((x, y), text, font=_font(18))
    pen.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=colour)
    pen.text((x, y), text, _PAPER, font=_font(18))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
