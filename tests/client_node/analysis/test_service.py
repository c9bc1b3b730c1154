"""The analysis of smears, with a real runtime."""

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from client_node.analysis.service import Analyser, Options
from client_node.analysis.store import SmearStore
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import cell_hash
from shared.contracts.errors import (
    DataInvalidError,
    HematovisionError,
    ModelInvalidError,
    NoSpaceError,
    NotFoundError,
    NothingToDoError,
)
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.models import cell_image, install_model

N, L, E = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.EOSINOPHIL
IG = CellClass.IMMATURE_GRANULOCYTE


def _gallery(folder: Path, *classes: CellClass) -> Path:
    for number, cls in enumerate(classes):
        save(folder / f"{number:03d}.png", cell_image(cls, number))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    install_model(tmp_path / "home")
    return tmp_path / "home"


def test_analyze_gallery_gives_differential_flags_and_a_stored_smear(home: Path, tmp_path: Path) -> None:
    folder = _gallery(tmp_path / "smear", *[N] * 12, *[L] * 5, *[IG] * 3)
    (folder / "smear.json").write_text(json.dumps({"pseudo": True}))
    (smear,) = Analyser(home).analyze([folder]).smears
    assert {cls: share.count for cls, share in smear.differential.items()} == {N: 12, IG: 3, L: 5}
    assert (smear.fields, smear.pseudo, smear.synthetic) == ((), True, False)
    assert {cell.field for cell in smear.cells} == {None}
    assert smear.cells[0].box == (0, 0, 80, 80)
    assert smear.cells[0].source == str(folder / "000.png")
    flag = next(flag for flag in smear.flags if flag.id == "immature.granulocytes")
    assert flag.evidence.cells == tuple(cell.id for cell in smear.cells if cell.cls is IG)
    assert CellClass.BLAST in smear.untrained_classes
    assert smear.limits[CellClass.LYMPHOCYTE] == (15.0, 45.0)
    assert (smear.model_version, smear.engine) == ("test-1", "onnxruntime")
    store = SmearStore(home)
    assert store.load(smear.id) == smear
    assert len(list((store.folder(smear.id) / "cells").glob("*.png"))) == 20


def test_analyze_fields_finds_cells_inside_their_field(home: Path, tmp_path: Path) -> None:
    image, truth = draw_field(0, [(N, 120.0, 120.0), (E, 420.0, 200.0)])
    path = save(tmp_path / "smear/f.png", image)
    (smear,) = Analyser(home).analyze([path]).smears
    assert [(field.path, field.width, field.height) for field in smear.fields] == [(str(path), 640, 480)]
    assert len(smear.cells) == len(truth)
    assert {cell.field for cell in smear.cells} == {0}
    folder = SmearStore(home).folder(smear.id)
    traces = json.loads((folder / "cells.json").read_text())
    for cell in smear.cells:
        with Image.open(folder / "cells" / f"{cell.id}.png") as picture:
            x0, y0, x1, y1 = traces[cell.id]["crop_box"]
            assert 0 <= x0 < x1 <= picture.width
            assert 0 <= y0 < y1 <= picture.height
            found = np.asarray(picture)[y0:y1, x0:x1]
        left, top, right, bottom = cell.box
        assert np.array_equal(found, image[top:bottom, left:right])
    assert (folder / "fields" / "0.jpg").is_file()


def test_analyze_names_bad_files_and_goes_on(home: Path, tmp_path: Path) -> None:
    folder = _gallery(tmp_path / "smear", N, L)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (folder / "cut.png").write_bytes((folder / "000.png").read_bytes()[:500])
    (smear,) = Analyser(home).analyze([folder]).smears
    assert len(smear.cells) == 2
    assert [warning.split(":")[0] for warning in smear.quality.warnings] == ["bad.png", "cut.png"]


def test_analyze_one_bad_smear_does_not_stop_the_next(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/bad.png").write_text("x")
    smears = Analyser(home).analyze([tmp_path / "a", _gallery(tmp_path / "b", N)]).smears
    assert [len(smear.cells) for smear in smears] == [0, 1]
    with pytest.raises(DataInvalidError):
        Analyser(home).analyze([tmp_path / "a"])


def test_analyze_again_is_the_same_smear(home: Path, tmp_path: Path) -> None:
    folder = _gallery(tmp_path / "smear", N, L, E)
    analyser = Analyser(home)
    first = analyser.analyze([folder]).smears[0]
    context = SmearStore(home).folder(first.id) / "context.json"
    context.write_text("{}")
    assert analyser.analyze([folder]).smears[0] == first
    assert context.is_file()


def test_analyze_options_mark_a_smear(home: Path, tmp_path: Path) -> None:
    options = Options(pseudo=True, synthetic=True)
    (smear,) = Analyser(home).analyze([_gallery(tmp_path / "smear", N)], options=options).smears
    assert (smear.pseudo, smear.synthetic) == (True, True)


def test_feedback_on_a_gallery_cell_reaches_the_catalogue(home: Path, tmp_path: Path) -> None:
    (smear,) = Analyser(home).analyze([_gallery(tmp_path / "smear", N, L)]).smears
    picture = SmearStore(home).folder(smear.id) / "cells" / f"{smear.cells[0].id}.png"
    digest = Catalogue(home).add_feedback(picture, IG, smear.id, smear.cells[0].id)
    (cell,) = Catalogue(home).cells(split="train")
    assert (cell.hash, cell.cls, cell.box) == (digest, IG, None)


def test_feedback_on_a_field_cell_keeps_its_box_in_the_stored_picture(home: Path, tmp_path: Path) -> None:
    image, _ = draw_field(0, [(N, 120.0, 120.0)])
    (smear,) = Analyser(home).analyze([save(tmp_path / "smear/f.png", image)]).smears
    folder = SmearStore(home).folder(smear.id)
    Catalogue(home).add_feedback(folder / "cells/c0001.png", E, smear.id, "c0001")
    (cell,) = Catalogue(home).cells(split="train")
    crop_box = tuple(json.loads((folder / "cells.json").read_text())["c0001"]["crop_box"])
    assert cell.box == crop_box
    assert cell.hash == cell_hash(cell.path.stem, cell.box)


def test_analyze_without_a_model_or_images_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelInvalidError, match="No model is installed"):
        Analyser(tmp_path / "other").analyze([_gallery(tmp_path / "smear", N)])
    (home / "models/test-1/card.json").write_text("{}")
    with pytest.raises(ModelInvalidError, match=r"card\.json"):
        Analyser(home).analyze([tmp_path / "smear"])
    with pytest.raises(NothingToDoError):
        Analyser(home).analyze([home / "models" / "test-1"])
    with pytest.raises(NotFoundError):
        SmearStore(home).load("S-nothing")


def test_analyze_on_a_full_disk_keeps_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _gallery(tmp_path / "smear", N, L, E)
    real, calls = os.fdopen, []

    def full_on_the_third(handle: int, mode: str = "r") -> object:
        calls.append(handle)
        if len(calls) == 3:
            os.close(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, mode)

    monkeypatch.setattr(os, "fdopen", full_on_the_third)
    with pytest.raises(NoSpaceError):
        Analyser(home).analyze([folder])
    assert list((home / "smears").iterdir()) == []


def test_reload_takes_the_new_model_and_keeps_the_old_one_on_an_error(home: Path) -> None:
    analyser = Analyser(home)
    assert analyser.model.card.version == "test-1"
    install_model(home, "test-2")
    assert analyser.reload() == "test-2"
    (home / "models/current.json").write_text('{"version": "../oops"}')
    with pytest.raises(ModelInvalidError):
        analyser.reload()
    assert analyser.model.card.version == "test-2"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    mode=st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "LA"]),
    fmt=st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "BMP"]),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    cut=st.integers(0, 400),
    kind=st.sampled_from(["fields", "gallery"]),
)
def test_analyze_any_picture_raises_nothing_but_our_errors(
    home: Path, tmp_path: Path, mode: str, fmt: str, width: int, height: int, cut: int, kind: str
) -> None:
    buffer = io.BytesIO()
    try:
        Image.new(mode, (width, height)).save(buffer, fmt)
    except (OSError, ValueError, KeyError):
        return
    path = tmp_path / "any.png"
    data = buffer.getvalue()
    path.write_bytes(data[: len(data) - cut] if cut > 200 else data)
    try:
        (smear,) = Analyser(home).analyze([path], options=Options.model_validate({"kind": kind})).smears
    except HematovisionError:
        return
    assert len(smear.cells) <= 1 or kind == "fields"
