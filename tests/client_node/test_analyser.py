"""The resident analyser as a process of its own, over its socket."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_node.ipc import call, socket_path
from shared.contracts.analysis import AnalysisOutput
from shared.contracts.errors import HematovisionError, NotFoundError, UsageError
from shared.contracts.ontology import CellClass
from tests.client_node.analysis.factories import save
from tests.client_node.analysis.models import cell_image, install_model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    install_model(home)
    command = [sys.executable, "-m", "client_node.analyser", "--home", str(home)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2]) as process:
        try:
            for _ in range(200):
                if socket_path(home, "analyser").exists():
                    break
                time.sleep(0.05)
            yield home
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0


def test_analyser_analyses_and_survives_bad_calls(home: Path, tmp_path: Path) -> None:
    path = socket_path(home, "analyser")
    image = save(tmp_path / "smear/a.png", cell_image(CellClass.LYMPHOCYTE))
    assert call(path, {"op": "ping"})[0] == {"ok": True}
    with pytest.raises(UsageError):
        call(path, {"op": "dance"})
    with pytest.raises(UsageError):
        call(path, {"op": "analyze", "paths": 5})
    with pytest.raises(NotFoundError):
        call(path, {"op": "analyze", "paths": [str(tmp_path / "absent")]})
    with pytest.raises(HematovisionError):
        call(path, {"op": "ping"}, b"tensors")
    answer, _ = call(path, {"op": "analyze", "paths": [str(image)], "options": {"stat": True}})
    (smear,) = AnalysisOutput.model_validate(answer["output"]).smears
    assert [cell.cls for cell in smear.cells] == [CellClass.LYMPHOCYTE]


def test_analyser_reloads_the_promoted_model(home: Path) -> None:
    install_model(home, "test-9")
    assert call(socket_path(home, "analyser"), {"op": "reload"})[0] == {"version": "test-9"}


def test_analyser_imports_no_torch() -> None:
    code = "import client_node.analyser, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
