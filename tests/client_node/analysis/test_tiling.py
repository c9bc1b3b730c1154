"""Cutting slides into fields: every cell once, whole, and nothing blank looked at."""

from pathlib import Path

import numpy as np
import pytest

from client_node.analysis.service import Analyser
from client_node.analysis.store import SmearStore
from client_node.analysis.tiling import CORE, MARGIN, fields, tiles
from client_node.home import NodeHome
from client_node.policy import write_default_policy
from shared.contracts.analysis import Smear
from shared.contracts.errors import DataInvalidError, NothingToDoError
from shared.contracts.ontology import CellClass
from shared.vision.slides import Slide
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.models import install_model
from tests.shared.vision.slide_files import dicom_slide, tiled_tiff

N = CellClass.NEUTROPHIL
FIELD, BOXES = draw_field(0, [(N, 150, 120), (N, 400, 200)])
PATCH = np.ascontiguousarray(FIELD[:360, :500])
SIDE = 5120


@pytest.mark.parametrize(("width", "height"), [(5000, 3000), (1024, 1024), (100, 9000), (1025, 1)])
def test_every_pixel_is_owned_once(width: int, height: int) -> None:
    owned = np.zeros((height, width), np.int8)
    for tile in tiles(width, height):
        assert tile.width <= CORE + 2 * MARGIN
        x0, y0, x1, y1 = tile.core
        owned[tile.y + y0 : tile.y + y1, tile.x + x0 : tile.x + x1] += 1
    assert np.array_equal(np.unique(owned), [1])


def test_the_first_tiles_are_spread_over_the_slide() -> None:
    first = list(tiles(20 * CORE, 20 * CORE))[:20]
    assert len({tile.x for tile in first}) > 8
    assert len({tile.y for tile in first}) > 8


def test_only_tiles_with_dye_are_looked_at(tmp_path: Path) -> None:
    with Slide(tiled_tiff(tmp_path / "s.tif", SIDE, {(1030, 2060): PATCH})) as slide:
        seen = [tile for tile, _ in fields(slide)]
    assert 1 <= len(seen) <= 4
    assert all(400 < tile.x <= 1530 and 1400 < tile.y <= 2420 for tile in seen)


def test_looking_goes_on_behind_what_was_looked_at(tmp_path: Path) -> None:
    marks = {(x, y): PATCH for x in (518, 2054, 3590) for y in (518, 2054, 3590)}
    with Slide(tiled_tiff(tmp_path / "s.tif", SIDE, marks)) as slide:
        every = [(tile.x, tile.y) for tile, _ in fields(slide)]
        rest = [(tile.x, tile.y) for tile, _ in fields(slide, behind=frozenset(every[:4]))]
    assert len(every) > 6
    assert rest == every[4:]


def test_a_slide_is_looked_at_further_until_enough_cells_are_found(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_model(home, finds=True)
    write_default_policy(NodeHome(home), release_key="x")
    policy = NodeHome(home).policy_file
    policy.write_text(policy.read_text().replace("slide_cells = 200", "slide_cells = 2"))
    marks = {(x, y): PATCH for x in (518, 2054, 3590) for y in (518, 2054, 3590)}
    analyser = Analyser(home)
    (smear,) = analyser.analyze([tiled_tiff(tmp_path / "s.tif", SIDE, marks)]).smears
    assert smear.quality.white_cells < 10
    found = analyser.look_further(smear.id, 4, fields=len(smear.fields), cells=len(smear.cells))
    whole = SmearStore(home).load(smear.id)
    assert whole.cells[: len(smear.cells)] == smear.cells
    assert found.cells - found.first_cell >= 4
    assert len({cell.id for cell in whole.cells}) == len(whole.cells) == found.cells
    origins = [field.origin for field in whole.fields]
    assert len(set(origins)) == len(origins), "no field is looked at twice"
    again = analyser.look_further(smear.id, 4, fields=len(smear.fields), cells=len(smear.cells))
    assert again == found, "what was found and is not sent yet is not looked for again"


def _one_field(tmp_path: Path) -> tuple[Path, Path, Analyser, Smear, dict[str, int]]:
    """Return (home, smear's folder, analyser, smear, what of it is sent) after one field was analysed."""
    home, folder = tmp_path / "home", tmp_path / "smear"
    install_model(home, finds=True)
    analyser = Analyser(home)
    save(folder / "1.png", PATCH)
    (smear,) = analyser.analyze([folder]).smears
    return home, folder, analyser, smear, {"fields": len(smear.fields), "cells": len(smear.cells)}


def test_no_field_is_taken_that_holds_more_than_may_leave(tmp_path: Path) -> None:
    home, folder, analyser, smear, sent = _one_field(tmp_path)
    assert sent == {"fields": 1, "cells": 2}
    for number in (2, 3):
        save(folder / f"{number}.png", draw_field(0, [(N, 150, 120), (N, 400, 200)], seed=number)[0][:360, :500])
    with pytest.raises(NothingToDoError, match="more cells than the hospital's policy"):
        analyser.look_further(smear.id, 1, **sent, most=1)
    found = analyser.look_further(smear.id, 3, **sent, most=3)
    assert (found.fields, found.cells) == (2, 4)
    found = analyser.look_further(smear.id, 3, **sent, most=4)
    assert (found.fields, found.cells) == (3, 6), "what was left out is found the next time"
    whole = SmearStore(home).load(smear.id)
    assert [cell.field for cell in whole.cells] == [0, 0, 1, 1, 2, 2]
    assert set(SmearStore(home).traces(smear.id)) == {cell.id for cell in whole.cells}


def test_smear_is_not_looked_at_further_with_another_model(tmp_path: Path) -> None:
    home, folder, analyser, smear, sent = _one_field(tmp_path)
    save(folder / "2.png", draw_field(0, [(N, 150, 120)], seed=2)[0][:360, :500])
    install_model(home, "test-2", finds=True)
    analyser.reload()
    with pytest.raises(DataInvalidError, match="model has changed"):
        analyser.look_further(smear.id, 1, **sent)
    install_model(home, "test-1", finds=True)
    analyser.reload()
    found = analyser.look_further(smear.id, 1, **sent)
    install_model(home, "test-2", finds=True)
    analyser.reload()
    assert analyser.look_further(smear.id, 1, **sent) == found, "what the same model found may still be sent"
    assert found.model_version == smear.model_version == "test-1"


def test_a_coarse_slide_is_cut_into_smaller_tiles() -> None:
    assert len(list(tiles(4096, 4096, 0.5))) == 4 * len(list(tiles(4096, 4096, 0.25)))


def test_a_slide_becomes_one_smear_whose_cells_count_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_model(home, finds=True)
    marks = {(1030, 2060): PATCH, (3076, 4100): PATCH}
    file = tiled_tiff(tmp_path / "slide.tif", SIDE, marks)
    (smear,) = Analyser(home).analyze([file]).smears
    assert len(smear.cells) == 4
    assert smear.quality.warnings == ()
    centres = set()
    for cell in smear.cells:
        assert cell.field is not None
        field = smear.fields[cell.field]
        assert field.origin is not None
        centres.add((round((cell.box[0] + cell.box[2]) / 2 + field.origin[0], -1),
                     round((cell.box[1] + cell.box[3]) / 2 + field.origin[1], -1)))  # fmt: skip
    wanted = {(x + (b[0] + b[2]) / 2, y + (b[1] + b[3]) / 2) for x, y in marks for b in BOXES}
    assert all(min(abs(x - a) + abs(y - b) for a, b in centres) < 30 for x, y in wanted)
    assert (SmearStore(home).folder(smear.id) / "fields" / "0.jpg").is_file()
    assert Analyser(home).analyze([file]).smears[0].id == smear.id


def test_looking_stops_when_enough_white_cells_are_found(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_model(home, finds=True)
    (home / "policy.toml").write_text("[analysis]\nslide_cells = 2\n")
    marks = {(x * 1024 + 6, y * 1024 + 6): PATCH for x in range(4) for y in range(4)}
    (smear,) = Analyser(home).analyze([tiled_tiff(tmp_path / "s.tif", SIDE, marks)]).smears
    assert 2 <= len(smear.cells) <= 6


def test_a_slide_without_white_cells_is_read_and_says_how_far(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_model(home, finds=True)
    (home / "policy.toml").write_text("[analysis]\nslide_fields = 2\n")
    dust = np.full((400, 400, 3), 235, np.uint8)
    dust[::16, ::16] = (90, 60, 150)
    marks = {(x * 1024 + 56, 56): dust for x in range(5)}
    (smear,) = Analyser(home).analyze([tiled_tiff(tmp_path / "s.tif", SIDE, marks)]).smears
    assert smear.cells == ()
    assert smear.quality.warnings == ("s.tif: only 2 fields of the slide were looked at.",)


def test_a_dicom_series_is_one_smear_and_tells_no_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_model(home)
    canvas = np.full((512, 768, 3), 235, np.uint8)
    canvas[:360, :500] = PATCH
    dicom_slide(tmp_path / "series", canvas)
    (smear,) = Analyser(home).analyze([tmp_path / "series"]).smears
    assert len(smear.cells) == 2
    assert "Secret" not in smear.model_dump_json()
    kept = b"".join(file.read_bytes() for file in SmearStore(home).folder(smear.id).rglob("*") if file.is_file())
    assert b"Secret" not in kept
    assert b"4711" not in kept


def test_a_damaged_slide_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install_model(home)
    whole = tiled_tiff(tmp_path / "s.tif", SIDE, {(1030, 2060): PATCH}).read_bytes()
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "good.tif").write_bytes(whole)
    (smear,) = Analyser(home).analyze([folder]).smears
    assert [warning.split(":")[0] for warning in smear.quality.warnings] == ["cut.tif"]
    assert len(smear.cells) == 2
