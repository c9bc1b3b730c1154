"""A node's home on a disk that is full to the brim: each command says so, loses nothing, and works again with room."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.synthetic import make_synthetic
from client_node.home import NodeHome
from shared.contracts.case import ClinicalContext, Priority
from shared.contracts.errors import ExitCode, NoSpaceError
from tests.client_node.centre import live_centre
from tests.client_node.nodes import joined

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")]

ROOT = Path(__file__).parents[2]
CONTEXT = ClinicalContext(patient_pseudonym="0" * 16)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write a file until nothing more fits."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "client_node.cli", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_full_disk_is_named_and_nothing_is_lost(disk: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_synthetic(data, sites=1, fields_per_site=24, gallery_cells_per_site=40)
    with live_centre(tmp_path / "server") as centre:
        home = joined(centre, disk / "home")
    queued, _ = Outbox(home).enqueue(smear_id="S-1", priority=Priority.ROUTINE, context=CONTEXT)
    entries = Ledger(home).verify()
    filler = fill(disk)
    for command in ("import", "status", "ledger", "doctor"):
        source = [str(data)] if command == "import" else []
        done = call(command, *source, "--home", str(home.path))
        assert done.returncode == ExitCode.NO_SPACE, (command, done.stderr)
        assert "room" in done.stderr + done.stdout or "free some space" in done.stderr, command
    with pytest.raises(NoSpaceError):
        Outbox(home).enqueue(smear_id="S-2", priority=Priority.ROUTINE, context=CONTEXT)
    filler.unlink()
    assert [case.case_id for case in Outbox(home).all()] == [queued.case_id]
    assert Ledger(home).verify() == entries
    done = call("import", str(data), "--home", str(home.path))
    assert done.returncode == 0, done.stderr
    assert Outbox(home).enqueue(smear_id="S-2", priority=Priority.ROUTINE, context=CONTEXT)[1]


def test_disk_that_fills_during_an_import_keeps_nothing_of_it(disk: Path, tmp_path: Path) -> None:
    data, home = tmp_path / "data", NodeHome(disk / "home")
    make_synthetic(data, sites=1, fields_per_site=24, gallery_cells_per_site=40)
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - 600_000)
    done = call("import", str(data), "--home", str(home.path))
    assert done.returncode == ExitCode.NO_SPACE, done.stderr
    filler.unlink()
    assert Catalogue(home.path).cells() == []
    assert [path for path in (home.path / "images").rglob("*") if path.is_file()] == []
