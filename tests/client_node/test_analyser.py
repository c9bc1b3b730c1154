"""The resident analyser as a process of its own, over its socket."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_node.analyser import AnalyserServer
from client_node.ipc import Lease, call, socket_path
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
            for _ in range(1200):
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


@pytest.mark.parametrize(
    ("on_gpu", "stat", "expected"),
    [(True, False, {"gpu"}), (False, False, set()), (True, True, {"machine"}), (False, True, {"machine"})],
)
def test_analysis_on_a_gpu_holds_training_there_still(
    tmp_path: Path, on_gpu: bool, stat: bool, expected: set[str]
) -> None:
    install_model(tmp_path / "home")
    for number in range(40):
        save(tmp_path / f"smear/{number}.png", cell_image(CellClass.LYMPHOCYTE, number))
    asked: list[str] = []

    def uses(engine: str) -> bool:
        asked.append(engine)
        return on_gpu

    server, held = AnalyserServer(tmp_path / "home", on_gpu=uses), set[str]()
    request = {"op": "analyze", "paths": [str(tmp_path / "smear")], "options": {"stat": stat}}
    answers: list[object] = []
    worker = threading.Thread(target=lambda: answers.append(server.handle(request, b"")))
    worker.start()
    while worker.is_alive():
        lease = Lease(tmp_path / "home")  # a trainer that has not waited yet
        # The machine is looked at on both sides: it may be taken, or given back, between two looks.
        before, gpu, after = (lease.pause_point(gpu=card, longest=0.0) > 0.0 for card in (False, True, False))
        if before or after:
            held.add("machine")
        elif gpu:
            held.add("gpu")
        time.sleep(0.002)
    worker.join()
    assert len(answers) == 1
    assert held == expected
    assert asked == ([] if stat else ["onnxruntime"])


def test_analyser_imports_no_torch() -> None:
    code = "import client_node.analyser, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
