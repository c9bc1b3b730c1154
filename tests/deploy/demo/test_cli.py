"""What the demonstration's command says to wrong use; nothing is started in any of these."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.partition import COLUMNS
from deploy.demo.platform import check_space
from shared.contracts.errors import ExitCode, NoSpaceError


def demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.demo.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def labels(folder: Path, sites: int) -> None:
    lines = [",".join(COLUMNS)]
    lines += [f"{n}.jpg,cell,neutrophil,,s,site-{n},g{n},train,,,," for n in range(sites)]
    (folder / "labels.csv").write_text("\n".join(lines))


def test_demo_with_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo("--port", str(port))
    assert done.returncode == ExitCode.PORT_IN_USE
    assert f"Port {port} is in use" in said(done)


def test_demo_with_a_data_folder_without_labels(tmp_path: Path) -> None:
    done = demo("--data", tmp_path)
    assert done.returncode == ExitCode.NO_LABELS
    assert "holds no labels.csv" in said(done)


def test_demo_with_more_sites_than_hospitals(tmp_path: Path) -> None:
    labels(tmp_path, 4)
    done = demo("--data", tmp_path, "--hospitals", "3", "--work", tmp_path / "work")
    assert done.returncode == ExitCode.USAGE
    assert "--hospitals 4" in said(done)


def test_demo_with_a_work_folder_that_holds_something(tmp_path: Path) -> None:
    labels(tmp_path, 1)
    done = demo("--data", tmp_path, "--work", tmp_path)
    assert done.returncode == ExitCode.CONFIG
    assert "is not empty" in said(done)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


def test_demo_with_an_unknown_option() -> None:
    done = demo("--twice")
    assert done.returncode == ExitCode.USAGE
    assert "--twice" in said(done)


def test_demo_with_json_but_not_once() -> None:
    done = demo("--json", "out.json")
    assert done.returncode == ExitCode.USAGE
    assert "--once" in said(done)


def test_check_space_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.demo.platform.NEEDED_BYTES", 10**18)
    with pytest.raises(NoSpaceError, match="--work"):
        check_space(tmp_path)
