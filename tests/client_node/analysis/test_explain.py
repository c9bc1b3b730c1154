"""Explaining a kept cell, and the site's cells that it is like."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client_node.analysis.explain import SIDE, explain
from client_node.analysis.model import load_model
from client_node.analysis.references import index_of
from client_node.analysis.service import Analyser
from client_node.cli import main
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.importers import import_source
from client_node.datasets.labelled import Kind, NewItem, Origin
from client_node.datasets.splits import Split
from shared.contracts.analysis import Smear
from shared.contracts.errors import ExitCode, NothingToDoError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.models import CLASSES, cell_image, install_model

N, L, E = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL


@pytest.fixture
def home(tmp_path: Path) -> Path:
    install_model(tmp_path / "home")
    return tmp_path / "home"


def gallery(home: Path, tmp_path: Path) -> Smear:
    for number, cls in enumerate((N, L, E)):
        save(tmp_path / f"smear/{number}.png", cell_image(cls, 900 + number))
    return Analyser(home).analyze([tmp_path / "smear"]).smears[0]


def catalogue(home: Path, tmp_path: Path) -> None:
    for number in range(60):
        cls = CLASSES[number % len(CLASSES)]
        save(tmp_path / f"labelled/{cls.value}/{number}.png", cell_image(cls, number))
    import_source(home, tmp_path / "labelled")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["hematovision-node", *map(str, arguments)])
    return main()


def test_an_overlay_is_about_the_class_that_the_model_names(home: Path, tmp_path: Path) -> None:
    smear = gallery(home, tmp_path)
    found = explain(home, smear.id, smear.cells[2].id)
    assert (found.explanation.cls, found.explanation.predicted) == (E, E)
    assert found.explanation.evidence
    assert found.explanation.centre == pytest.approx((0.5, 0.5), abs=0.15)
    assert found.heat.shape == found.crop.shape[:2] == (SIDE, SIDE)
    assert explain(home, smear.id, smear.cells[2].id, cls=L).explanation.probability < 0.5


def test_a_cell_of_a_field_tells_how_much_heat_lies_in_its_box(home: Path, tmp_path: Path) -> None:
    file = save(tmp_path / "field.png", draw_field(0, [(N, 150, 120), (E, 400, 200)])[0])
    (smear,) = Analyser(home).analyze([file]).smears
    for cell in smear.cells:
        dark = explain(home, smear.id, cell.id, cls=CellClass.IMMATURE_GRANULOCYTE).explanation
        light = explain(home, smear.id, cell.id, cls=N).explanation
        assert None not in (dark.in_box, dark.in_nucleus, light.in_box, light.in_nucleus)
        # The model knows the one class by dark pixels, which are the nucleus, and the other by light ones beside it.
        assert (dark.in_box or 0.0) > 0.95
        assert (dark.in_nucleus or 0.0) > 0.85
        assert (light.in_box or 1.0) < 0.3
        assert (light.in_nucleus or 0.0) < 0.01
        assert 0.1 < dark.nucleus == light.nucleus < 0.4


def test_an_image_of_one_cell_has_no_box_to_compare_with(home: Path, tmp_path: Path) -> None:
    smear = gallery(home, tmp_path)
    assert explain(home, smear.id, smear.cells[0].id).explanation.in_box is None


def test_command_writes_a_picture_with_references(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smear = gallery(home, tmp_path)
    catalogue(home, tmp_path)
    capsys.readouterr()
    out = tmp_path / "why.png"
    code = run(
        monkeypatch, "explain", smear.id, smear.cells[0].id, "--home", home, "--out", out, "--references", 4, "--json"
    )
    assert code == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert (said["class"], said["path"]) == ("neutrophil", str(out))
    assert [one["class"] for one in said["references"]] == ["neutrophil"] * 4
    with Image.open(out) as image:
        assert image.size[0] == 2 * SIDE
        assert image.size[1] > SIDE


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["S-none", "c0001"], ExitCode.NOT_FOUND),
        (["SMEAR", "c9999"], ExitCode.NOT_FOUND),
        (["SMEAR", "c0001", "--class", "griffin"], ExitCode.USAGE),
        (["SMEAR", "c0001", "--class", "blast"], ExitCode.USAGE),
    ],
)
def test_what_cannot_be_explained_has_a_number(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: ExitCode
) -> None:
    smear = gallery(home, tmp_path)
    given = [smear.id if one == "SMEAR" else one for one in arguments]
    assert run(monkeypatch, "explain", *given, "--home", home) == code


def test_references_are_the_nearest_of_the_training_cells_and_are_kept(home: Path, tmp_path: Path) -> None:
    model = load_model(home / "models/test-1")
    with pytest.raises(NothingToDoError, match="import some"):
        index_of(home, model)
    catalogue(home, tmp_path)
    index = index_of(home, model)
    crops = [model.cut(cell_image(cls, 500), None) for cls in CLASSES]
    features = np.concatenate([outputs.features for outputs in model.outputs(crops)])
    found = index.nearest(features, 3)
    assert [{one.cls for one in row} for row in found] == [{cls} for cls in CLASSES]
    assert all(row[0].distance <= row[1].distance <= row[2].distance for row in found)
    (file,) = (home / "references").glob("*.npz")
    before = file.stat().st_mtime_ns
    again = index_of(home, model)
    assert file.stat().st_mtime_ns == before
    assert again.hashes == index.hashes


def add_signed(home: Path, tmp_path: Path, split: Split, *, first: int = 700) -> list[str]:
    """Cells whose label came home with a report, though they lie in another split than training."""
    hashes = []
    with Catalogue(home).writing() as writer:
        for number, cls in enumerate(CLASSES):
            data = save(tmp_path / f"signed/{number}.png", cell_image(cls, first + number)).read_bytes()
            image = writer.put_image(data).sha256
            item = NewItem(image, Kind.CELL, None, cls, "f", "s", f"signed-{number}", split, Origin.FEEDBACK, "S", "c")
            writer.add([item])
            hashes.append(item.hash)
    return hashes


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
def test_signed_references_come_from_any_split_and_imported_ones_can_be_left_out(
    home: Path, tmp_path: Path, split: Split
) -> None:
    model = load_model(home / "models/test-1")
    catalogue(home, tmp_path)
    (outputs,) = model.outputs([model.cut(cell_image(N, 500), None)])
    with pytest.raises(NothingToDoError, match="leave --signed out"):
        index_of(home, model).nearest(outputs.features, 3, signed=True)
    hashes = add_signed(home, tmp_path, split)
    (mixed,) = index_of(home, model).nearest(outputs.features, 30)
    (signed,) = index_of(home, model).nearest(outputs.features, 3, signed=True)
    assert [one.signed for one in signed] == [True] * 3
    assert signed[0].hash == hashes[CLASSES.index(N)]
    assert signed[0].hash in {one.hash for one in mixed}
    assert {one.signed for one in mixed} == {True, False}


def test_a_signed_reference_stands_before_an_imported_one_that_is_as_near(home: Path, tmp_path: Path) -> None:
    model = load_model(home / "models/test-1")
    catalogue(home, tmp_path)
    add_signed(home, tmp_path, Split.VAL)
    index = index_of(home, model)
    place = next(number for number, cell in enumerate(index.cells) if cell.origin is Origin.IMPORT and cell.cls is N)
    twin = next(number for number, cell in enumerate(index.cells) if cell.origin is Origin.FEEDBACK and cell.cls is N)
    features = index.features.copy()
    features[twin] = features[place]  # as alike as can be
    tied = replace(index, features=features)
    (found,) = tied.nearest(features[place : place + 1].astype(np.float32), 2)
    assert [one.signed for one in found] == [True, False]
    assert found[0].distance == pytest.approx(found[1].distance, abs=1e-6)


def test_command_names_signed_references_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smear = gallery(home, tmp_path)
    catalogue(home, tmp_path)
    arguments = ("references", smear.id, smear.cells[0].id, "--home", home, "--signed", "--json")
    assert run(monkeypatch, *arguments) == ExitCode.NOTHING_TO_DO
    add_signed(home, tmp_path, Split.TEST)
    capsys.readouterr()
    assert run(monkeypatch, *arguments) == ExitCode.OK
    assert [one["signed"] for one in json.loads(capsys.readouterr().out)["references"]] == [True] * 4
