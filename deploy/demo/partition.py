"""Who holds which images: every site its own hospital, the largest shared out with label skew, always by group.

A few training groups are set aside per hospital before anything is imported (`deploy.demo.smears.set_aside`): the pool
from which that hospital's pseudo-smears are made. So nothing that a smear shows was ever trained on, and no test group
turns into training data when a corrected label comes home.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from shared.contracts.errors import DataInvalidError, NoLabelsError, UsageError

Row = dict[str, str]
COLUMNS = (
    "path", "kind", "class", "subtype", "source", "site", "group", "split", "xmin", "ymin", "xmax", "ymax",
)  # fmt: skip

_OURS = {"labels.csv", "SYNTHETIC"}


@dataclass
class HospitalData:
    """What one hospital of the demonstration starts with."""

    id: str
    name: str
    site: str
    rows: list[Row] = field(default_factory=list)
    """To be imported: training, validation and test groups."""
    pool: list[Row] = field(default_factory=list)
    """Never imported: raw material of pseudo-smears."""


def read_labels(data: Path) -> list[Row]:
    """Read ``labels.csv`` of ``data``; raise an error that says what is missing."""
    labels = data / "labels.csv"
    if not data.is_dir():
        raise NoLabelsError(f"{data} is not a folder. Give --data a folder that holds a labels.csv.")
    if not labels.is_file():
        raise NoLabelsError(f"{data} holds no labels.csv. Add one (columns: {', '.join(COLUMNS)}) or leave --data out.")
    try:
        with labels.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = {"path", "kind", "class", "group", "split"} - set(reader.fieldnames or ())
            if missing:
                raise DataInvalidError(f"{labels} lacks the columns {', '.join(sorted(missing))}.")
            rows = [{column: row.get(column) or "" for column in COLUMNS} for row in reader]
    except (csv.Error, OSError, UnicodeDecodeError):
        raise DataInvalidError(f"{labels} is no readable UTF-8 CSV file: export it again.") from None
    if not any(row["class"] for row in rows):
        raise NoLabelsError(f"{labels} names no class in any row: there is nothing to learn from.")
    return rows


def unit(text: str) -> float:
    """Return a number in [0, 1) that depends on ``text`` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def share_out(rows: list[Row], parts: int) -> list[list[Row]]:
    """Split one site's rows between ``parts`` hospitals with label skew, keeping each group whole.

    Part k prefers the classes whose position is k modulo ``parts``: it gets 70 % of their groups, the others share
    the rest.
    """
    classes = sorted({row["class"] for row in rows if row["class"]})
    group_class: dict[str, str] = {}
    for row in rows:
        if row["class"] or row["group"] not in group_class:
            group_class[row["group"]] = row["class"]
    shared: list[list[Row]] = [[] for _ in range(parts)]
    for row in rows:
        label = group_class[row["group"]]
        favourite = classes.index(label) % parts if label else 0
        draw = unit("site:" + row["group"])
        others = [k for k in range(parts) if k != favourite]
        part = favourite if draw < 0.7 or not others else others[int((draw - 0.7) / 0.3 * len(others)) % len(others)]
        shared[part].append(row)
    return shared


def assign(rows: list[Row], hospitals: int) -> list[HospitalData]:
    """Give each site to a hospital of its own and the largest site to all hospitals that are left.

    Raises:
        UsageError: there are more sites than hospitals.
    """
    by_site: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_site[row["site"] or row["source"] or "site"].append(row)
    sizes = Counter({site: len(members) for site, members in by_site.items()})
    sites = [site for site, _ in sizes.most_common()]
    if len(sites) > hospitals:
        raise UsageError(f"The data names {len(sites)} sites; call again with --hospitals {len(sites)} or more.")
    largest, rest = sites[0], sites[1:]
    parts = share_out(by_site[largest], hospitals - len(rest))
    assigned = [(largest, part) for part in parts] + [(site, by_site[site]) for site in rest]
    result = []
    for position, (site, members) in enumerate(assigned):
        letter = chr(ord("a") + position) if position < 26 else str(position + 1)
        name = f"Hospital {letter.upper()}"
        result.append(HospitalData(id=f"hospital-{letter}", name=name, site=site, rows=members))
    return result


def image_of(row: Row, data: Path) -> Path | None:
    """Return the image file of a row, or None where there is none below ``data``."""
    path = Path(row["path"])
    if not row["path"] or path.is_absolute() or ".." in path.parts or path.name in _OURS:
        return None
    return data / path if (data / path).is_file() else None


def write_import_folder(hospital: HospitalData, *, data: Path, out: Path) -> Path:
    """Write the folder that the hospital imports: its own ``labels.csv`` beside links to the image folders.

    Every row is in it, so that the import counts and names those whose image is missing.
    """
    out.mkdir(parents=True)
    for top in sorted({image.relative_to(data).parts[0] for row in hospital.rows if (image := image_of(row, data))}):
        (out / top).symlink_to((data / top).resolve())
    if (data / "SYNTHETIC").exists():
        (out / "SYNTHETIC").touch()
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(hospital.rows)
    return out
