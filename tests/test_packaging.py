"""The package is this repository, cannot be uploaded by accident, and keeps heavy libraries where they belong."""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from server.federation.tasks import MANIFEST

ROOT = Path(__file__).parents[1]
# Parts of what is named, imported by their own name: fastapi is starlette, sqlmodel SQLAlchemy, minio urllib3 …
COME_ALONG = {"starlette", "sqlalchemy", "urllib3", "asn1crypto", "pyhanko-certvalidator", "click", "redis"}

# Brought by hand for one section of the model's bench, which says so where it is not there: it depends on far more than
# the loss functions that are asked of it.
BY_HAND = {"lightly"}

# What a process may import to start, and what must then not have been loaded. `server` and `portal` mean every module
# below them that a web process reaches.
LIGHT = [
    (["server", "portal"], ["torch", "timm", "torchvision", "onnxruntime", "flwr"]),
    (["server.app"], ["torch", "timm", "flwr"]),
    (["server.worker"], ["torch", "timm"]),
    (["server.cli"], ["torch", "timm"]),
    (["portal.main"], ["torch", "timm", "flwr"]),
    (["client_node.agent"], ["torch", "timm"]),
    (["client_node.cli"], ["torch", "timm"]),
    (["client_node.relay.app"], ["torch", "timm"]),
    (
        ["shared.crypto.envelope", "shared.storage", "shared.logging", "shared.settings", "shared.progress"],
        ["torch", "flwr", "sqlmodel", "fastapi"],
    ),
    (["shared.contracts.case", "shared.contracts.errors"], ["torch", "numpy", "cryptography", "minio"]),
]

PROBE = """
import importlib, json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"{name} must not be imported here", name=name)
FORBIDDEN = set(json.loads(sys.argv[2]))
sys.meta_path.insert(0, Absent())
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
print(json.dumps(sorted(FORBIDDEN & set(sys.modules))))
"""


@pytest.mark.parametrize("name", ["shared", "client_node", "server", "portal"])
def test_name_resolves_to_this_repository(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve() == ROOT / name / "__init__.py"


def test_upload_is_refused_and_all_packages_are_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {"shared", "client_node", "server", "portal", "deploy"} == set(wheel)
    # What the commands and the centre's release of the Flower app stand on must be among them.
    started = {place.partition(".")[0] for place in project["project"]["scripts"].values()}
    assert started | {MANIFEST.relative_to(ROOT).parts[0]} <= set(wheel)


@pytest.mark.parametrize(
    ("packages", "extras"),
    [
        (["shared"], []),
        (["server", "portal", "shared/reporting"], ["server"]),
        (["client_node", "shared/reporting", "shared/vision"], ["node"]),
        (["deploy", "tests"], ["server", "node", "dev"]),
    ],
    ids=lambda value: "+".join(value) or "base",
)
def test_each_library_a_package_imports_is_in_its_extra(packages: list[str], extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for name in extras for line in _lines(project, name))]
    named = {_normal(re.split(r"[^A-Za-z0-9_.-]", line)[0]) for line in wanted}
    installed = packages_distributions()  # reads what every installed package says of itself: once
    missing = {
        library
        for library in _imported(packages) - BY_HAND
        if not {_normal(name) for name in installed[library]} & (named | COME_ALONG)
    }
    assert missing == set()


def _lines(project: dict[str, Any], extra: str) -> list[str]:
    """The requirements of an extra, with those of the extras of ours that it names."""
    lines: list[str] = []
    for line in project["optional-dependencies"][extra]:
        own = re.fullmatch(r"hematovision\[([a-z-]+)\]", line)
        lines += _lines(project, own[1]) if own else [line]
    return lines


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(packages: list[str]) -> set[str]:
    """Return the top names that files below ``packages`` import and that are neither ours nor Python's own."""
    ours = {*sys.stdlib_module_names, "shared", "client_node", "server", "portal", "deploy", "tests"}
    found: set[str] = set()
    for package in packages:
        for file in (ROOT / package).rglob("*.py"):
            # These two parts of `shared` are imported with an extra only.
            if package == "shared" and file.relative_to(ROOT).parts[1] in {"reporting", "vision"}:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                found |= {name.partition(".")[0] for name in names}
    return found - ours


@pytest.mark.parametrize(("modules", "forbidden"), LIGHT, ids=lambda value: "+".join(value))
def test_process_starts_without(modules: list[str], forbidden: list[str]) -> None:
    """Import in a fresh interpreter in which the forbidden libraries are not installed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE, json.dumps(modules), json.dumps(forbidden)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_each_pin_is_exact_and_listed_once() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(name and middle and version for name, middle, version in pins)
    names = [name.lower().replace("_", "-") for name, _, _ in pins]
    assert sorted(set(names)) == sorted(names)
