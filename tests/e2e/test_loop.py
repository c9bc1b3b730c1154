"""The whole loop, as `make demo ARGS="--once"` runs it, on synthetic smears; at two hospitals, to be done sooner."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deploy.demo.result import DemoResult

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    work = tmp_path_factory.mktemp("demo")
    out = work / "out.json"
    command = [sys.executable, "-m", "deploy.demo.cli", "--once", "--hospitals", "2", "--rounds", "2"]
    command += ["--work", str(work / "work"), "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    left = [p.cmdline() for p in psutil.process_iter(["cmdline"]) if str(work) in " ".join(p.info["cmdline"] or [])]
    assert left == []
    return DemoResult.model_validate(json.loads(out.read_text()))


def test_loop_trains_every_hospital_in_every_round(result: DemoResult) -> None:
    assert [line.round for line in result.federation.rounds] == [1, 2]
    assert all((line.sampled, line.replied) == (2, 2) for line in result.federation.rounds)
    assert all(line.bytes_up > 0 and line.bytes_down > 0 for line in result.federation.rounds)
    assert sorted(result.federation.per_site) == ["hospital-a", "hospital-b"]


def test_loop_flags_a_smear_on_cells_whose_truth_supports_it(result: DemoResult) -> None:
    assert any(check.supported for check in result.flags_checked)


def test_loop_loses_no_case_between_node_and_report(result: DemoResult) -> None:
    counts = result.cases
    assert counts.flagged > 0
    flow = [counts.uploaded, counts.received, counts.signed, counts.delivered, counts.acknowledged]
    assert flow == [counts.flagged] * 5


def test_loop_brings_a_corrected_label_into_the_next_round(result: DemoResult) -> None:
    assert result.cases.feedback_labels == result.cases.signed
    manifest = json.loads(Path(result.feedback.manifest).read_text())
    assert result.feedback.cell_hash in manifest["cells"]
    assert result.feedback.cell_hash in manifest["feedback_cells"]


def test_loop_leaves_the_identified_report_at_the_hospital(result: DemoResult) -> None:
    report = Path(result.report.path)
    assert report.read_bytes().startswith(b"%PDF-")
    assert result.report.pages >= 1


def test_loop_marks_everything_synthetic(result: DemoResult) -> None:
    assert result.synthetic
