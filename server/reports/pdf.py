"""The report as a document: what the template says, from the record and the case's context."""

import io
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Final

from PIL import Image

from shared.contracts.analysis import Flag, FlagEvidence, Quality
from shared.contracts.case import BloodCount, ClinicalContext, Priority, Sex
from shared.contracts.findings import Part
from shared.contracts.report import ReportStatus, SignedRecord
from shared.reporting.findings import statements
from shared.reporting.layout import IDENTITY_BOX, IDENTITY_LINE
from shared.reporting.typeset import typeset

TEMPLATE: Final = Path(__file__).parent / "templates" / "report.typ"
_CELL_PIXELS: Final = 240

_STATUS: Final = {
    ReportStatus.PRELIMINARY: "Preliminary report",
    ReportStatus.FINAL: "Final report",
    ReportStatus.AMENDED: "Amended report",
    ReportStatus.CORRECTED: "Corrected report",
    ReportStatus.APPENDED: "Final report with addition",
    ReportStatus.CANCELLED: "No result: glass slide asked for",
    ReportStatus.ENTERED_IN_ERROR: "Entered in error: do not use",
}
_FLAG_NAMES: Final = {
    "blast.present": "Blasts",
    "immature.granulocytes": "Immature granulocytes",
    "variant.lymphocytes": "Variant lymphocytes",
    "nrbc.present": "Nucleated red cells",
    "uncertain.cells": "Uncertain cells",
    "out_of_distribution": "Unknown stain or cells",
    "too_few_cells": "Few cells",
    "image.quality": "Image quality",
}


def typeset_report(
    record: SignedRecord,
    *,
    context: ClinicalContext,
    quality: Quality,
    priority: Priority,
    hospital_name: str,
    received_at: datetime,
    record_sha256: str,
    cell_numbers: dict[str, int],
    read_image: Callable[[str], tuple[bytes, str]],
) -> tuple[bytes, dict[str, bytes]]:
    """Return the unsigned PDF, and the key cells' thumbnails (PNG) by cell id."""
    thumbnails = {cell.cell_id: thumbnail(read_image(cell.blob)[0]) for cell in record.key_cells}
    files = {f"cell-{index}.png": thumbnails[cell.cell_id] for index, cell in enumerate(record.key_cells)}
    data = {
        "case_id": record.case_id,
        "version": record.version,
        "status": _STATUS[record.status],
        "pseudo": record.pseudo,
        "synthetic": record.synthetic,
        "rooms": {"box": asdict(IDENTITY_BOX), "line": asdict(IDENTITY_LINE)},
        "facts": _facts(context, priority=priority, hospital_name=hospital_name, received_at=received_at),
        "question": context.question,
        "impression": record.impression,
        "differential": [
            {
                "name": cls.info.name,
                "count": share.count,
                "percent": share.percent,
                "low": share.low,
                "high": share.high,
                "percent_text": f"{share.percent:.1f}",
                "interval": _range(share.low, share.high),
            }
            for cls, share in sorted(record.differential.items(), key=lambda item: item[0].order)
        ],
        "cells_counted": record.cells_counted,
        "nrbc": f"{record.nrbc_per_100_wbc:.1f}",
        "flags": [_flag(flag, record.dismissed_flags.get(flag.id, "")) for flag in record.flags],
        "findings": _findings(record),
        "replaces": _replaces(record),
        "not_gradable": record.not_gradable is not None,
        "quality": _quality(quality),
        "untrained": _listed([cls.info.name + "s" for cls in record.untrained_classes]),
        "cells": [
            {
                "file": f"cell-{index}.png",
                "name": cell.cls.info.name,
                "number": str(cell_numbers.get(cell.cell_id, cell.cell_id)),
                "changed": cell.changed_by_reader,
            }
            for index, cell in enumerate(record.key_cells)
        ],
        "signature": {
            "reader_name": record.signature.reader_name,
            "reader_role": record.signature.reader_role,
            "signed_at": _moment(record.signature.signed_at),
            "meaning": record.signature.meaning,
        },
        "record_sha256": f"sha256 {record_sha256[:32]}",
        "model_version": record.model_version,
    }
    return typeset(TEMPLATE, data, files=files, timestamp=record.signature.signed_at), thumbnails


def thumbnail(image: bytes) -> bytes:
    """Return an image as a small plain RGB PNG: nothing but pixels goes into a report."""
    with Image.open(io.BytesIO(image)) as opened:
        opened.draft("RGB", (_CELL_PIXELS, _CELL_PIXELS))
        square = min(opened.size)
        left, top = (opened.width - square) // 2, (opened.height - square) // 2
        cut = opened.convert("RGB").crop((left, top, left + square, top + square))
    out = io.BytesIO()
    cut.resize((_CELL_PIXELS, _CELL_PIXELS), Image.Resampling.LANCZOS).save(out, "PNG", optimize=True)
    return out.getvalue()


def _facts(
    context: ClinicalContext, *, priority: Priority, hospital_name: str, received_at: datetime
) -> list[tuple[str, str, int]]:
    """Return label, value and columns taken of what a reader was told, in a grid of three."""
    person = " · ".join(
        part
        for part in (
            "" if context.sex is Sex.UNKNOWN else context.sex.value,
            "" if context.age_band == "unknown" else f"{context.age_band.replace('-', '–')} years",
        )
        if part
    )
    facts = [
        ("Sent by", hospital_name, 1),
        ("Received", _moment(received_at), 1),
        ("Priority", "STAT" if priority is Priority.STAT else priority.value, 1),
        ("Sex and age", person, 1),
        ("Blood count", _blood_count(context.blood_count), 2),
    ]
    return [fact for fact in facts if fact[1]]


def _blood_count(count: BloodCount) -> str:
    values = [
        ("WBC", count.wbc_10e9_l, "×10⁹/L"),
        ("Hb", count.hb_g_l, "g/L"),
        ("PLT", count.plt_10e9_l, "×10⁹/L"),
        ("MCV", count.mcv_fl, "fL"),
    ]
    return " · ".join(f"{name} {value:g} {unit}" for name, value, unit in values if value is not None)


def _flag(flag: Flag, dismissed: str) -> dict[str, str]:
    name = _FLAG_NAMES.get(flag.id, flag.id.replace(".", " ").replace("_", " ").capitalize())
    return {
        "name": name,
        "severity": flag.severity.value,
        "evidence": _evidence(flag.evidence),
        "dismissed": dismissed,
    }


def _evidence(evidence: FlagEvidence) -> str:
    text = evidence.text.rstrip(".")
    figures = []
    if evidence.count is not None and evidence.total and str(evidence.count) not in text:
        figures.append(f"{evidence.count} of {evidence.total} cells")
    if evidence.low is not None and evidence.high is not None and f"{evidence.low:.1f}" not in text:
        figures.append(f"95 % interval {_range(evidence.low, evidence.high)}\u00a0%")
    return f"{text} ({'; '.join(figures)})." if figures else f"{text}."


def _replaces(record: SignedRecord) -> str:
    if record.amendment is None:
        return ""
    return f"Replaces version {record.amendment.of_version}. {record.amendment.reason}"


def _findings(record: SignedRecord) -> list[dict[str, object]]:
    """Return what was found part by part: heading, and its statements."""
    said = statements(record.findings) if record.findings else []
    return [
        {
            "title": part.words,
            "rows": [
                {
                    "name": one.name[:1].upper() + one.name[1:],
                    "words": one.words,
                    "remark": one.remark,
                    "abnormal": one.abnormal,
                }
                for one in said
                if one.part is part
            ],
        }
        for part in Part
        if any(one.part is part for one in said)
    ]


def _quality(quality: Quality) -> str:
    beyond = f"{100 * quality.ood_fraction:.0f} % of cells look unlike those the model was trained on."
    warnings = " ".join(f"{warning.rstrip('.')}." for warning in quality.warnings)
    return f"{quality.white_cells} white cells found. {beyond} {warnings}".strip()


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _range(low: float, high: float) -> str:
    return f"{low:.1f}\u00a0–\u2060\u00a0{high:.1f}"


def _moment(at: datetime) -> str:
    return f"{at:%d %b %Y %H:%M} UTC"
