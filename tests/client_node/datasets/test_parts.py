"""A part of a catalogue as a home of its own."""

from pathlib import Path

import pytest

from client_node.datasets.catalogue import Catalogue
from client_node.datasets.parts import write_part
from shared.contracts.errors import NotFoundError
from tests.client_node.training.site import make_home


def test_a_part_has_its_cells_with_their_images_and_no_others(tmp_path: Path) -> None:
    home = make_home(tmp_path / "whole")
    wanted = Catalogue(home).cells()[::3]
    assert write_part(home, tmp_path / "part", [cell.hash for cell in wanted]) == len(wanted)
    found = Catalogue(tmp_path / "part").cells()
    assert [(cell.hash, cell.cls, cell.split) for cell in found] == [
        (cell.hash, cell.cls, cell.split) for cell in wanted
    ]
    assert [cell.path.read_bytes() for cell in found] == [cell.path.read_bytes() for cell in wanted]
    assert Catalogue(tmp_path / "part").fields() == []


def test_a_part_written_again_replaces_the_first(tmp_path: Path) -> None:
    home = make_home(tmp_path / "whole", train=2, val=1, test=1)
    cells = Catalogue(home).cells()
    write_part(home, tmp_path / "part", [cell.hash for cell in cells])
    assert write_part(home, tmp_path / "part", [cells[0].hash]) == 1


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="import labelled images"):
        write_part(tmp_path, tmp_path / "part", [])
