"""`hematovision-node` as a person calls it: exit codes, one clear line, JSON, a quick start."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_node import enrol
from client_node.cases.ledger import Ledger
from client_node.doctor import examine
from client_node.home import NodeHome
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import Kit, NodeMode
from shared.contracts.errors import ExitCode
from tests.client_node.centre import LiveCentre, live_centre
from tests.client_node.nodes import joined

ROOT = Path(__file__).parents[2]


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[LiveCentre]:
    with live_centre(tmp_path / "server") as made:
        yield made


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "client_node.cli", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), ExitCode.USAGE),
        (("nonsense",), ExitCode.USAGE),
        (("import", "absent", "--home", "h", "--format", "other"), ExitCode.USAGE),
        (("status",), ExitCode.USAGE),
        (("init", "--home", "h", "--kit", "k", "--mode", "other"), ExitCode.USAGE),
        (("analyze", "x", "--home", "h", "--priority", "stat"), ExitCode.USAGE),
        (("status", "--home", "absent"), ExitCode.CONFIG),
        (("init", "--home", "absent", "--kit", "absent.json"), ExitCode.KIT_INVALID),
    ],
)
def test_wrong_use_is_one_clear_line(arguments: tuple[str, ...], status: ExitCode) -> None:
    done = call(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_start_loads_no_model_library() -> None:
    heavy = "[name for name in ('torch', 'onnxruntime', 'numpy', 'PIL', 'flwr', 'httpx') if name in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, client_node.cli; print({heavy})"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_agent_loads_no_model_library() -> None:
    heavy = "[name for name in ('torch', 'timm', 'onnxruntime', 'flwr') if name in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, client_node.agent; print({heavy})"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_init_status_and_ledger_as_json(centre: LiveCentre, tmp_path: Path) -> None:
    home = tmp_path / "home"
    said = json.loads(call("init", "--home", str(home), "--kit", str(centre.kit(tmp_path)), "--json").stdout)
    assert (said["state"], said["mode"]) == ("pending", "training")
    centre.approve(said["node_id"], said["fingerprint"])
    status = json.loads(call("status", "--home", str(home), "--json").stdout)
    assert (status["node_id"], status["running"], status["cases"]) == (said["node_id"], False, [])
    ledger = json.loads(call("ledger", "--home", str(home), "--json").stdout)
    assert (ledger["totals"]["cases"], [entry["kind"] for entry in ledger["entries"]]) == (0, ["enrolment"])


def _remade(centre: LiveCentre, kit: Path, **change: object) -> None:
    """Change a kit as only its own centre could: it is signed anew."""
    draft = Kit.model_validate({**json.loads(kit.read_text()), "signature": "", **change})
    signature = centre.runtime.vault.sign(canonical_bytes(draft))
    kit.write_text(draft.model_copy(update={"signature": signature}).model_dump_json())


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("kit_expired", "ask the coordinator for a new one"),
        ("kit_used", "a kit is good for one node"),
        ("kit_invalid", "was changed after it was made"),
        ("kit_other_server", "names another server than the one that signed it"),
    ],
)
def test_init_says_what_is_wrong_with_a_kit(centre: LiveCentre, tmp_path: Path, code: str, sentence: str) -> None:
    kit, home = centre.kit(tmp_path), tmp_path / "home"
    match code:
        case "kit_expired":
            _remade(centre, kit, expires_at="2020-01-01T00:00:00Z")
        case "kit_used":
            enrol.init(NodeHome(tmp_path / "first"), kit, mode=NodeMode.TRAINING)
        case "kit_invalid":
            kit.write_text(json.dumps({**json.loads(kit.read_text()), "hospital_id": "b"}))
        case _:
            _remade(centre, kit, server_id="ffff-0000")
    done = call("init", "--home", str(home), "--kit", str(kit), "--json")
    said = json.loads(done.stdout)["error"]
    assert (done.returncode, said["code"], sentence in said["message"]) == (ExitCode[code.upper()], code, True)
    assert not NodeHome(home).initialised


def test_doctor_names_each_fault_with_its_remedy(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home")
    home.signing_key.chmod(0o644)
    levels = {check.name: (check.level.value, check.detail) for check in examine(home).checks}
    assert levels["home"][0] == levels["centre"][0] == levels["approval"][0] == levels["clock"][0] == "ok"
    assert levels["keys"] == ("failed", "Readable by others: run chmod 600 keys/signing.pem")
    assert levels["catalogue"][0] == "failed"
    assert "hematovision-node import" in levels["catalogue"][1]
    assert levels["superlink"][0] == "failed"
    assert examine(home).exit_code == ExitCode.CONFIG


def test_doctor_on_an_empty_folder_says_where_to_begin(tmp_path: Path) -> None:
    output = examine(NodeHome(tmp_path))
    assert not output.healthy
    assert output.exit_code == ExitCode.CONFIG
    assert "init" in output.checks[0].detail


def test_doctor_shows_a_changed_ledger(centre: LiveCentre, tmp_path: Path) -> None:
    home = joined(centre, tmp_path / "home")
    Ledger(home).record(kind="case", subject="HV-00000001", size=1, sha256="a" * 64)
    home.ledger.write_bytes(b"not a database" * 100)
    (ledger,) = (check for check in examine(home).checks if check.name == "ledger")
    assert (ledger.level.value, "restore" in ledger.detail) == ("failed", True)
