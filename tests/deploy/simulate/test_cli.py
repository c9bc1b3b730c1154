"""``federate simulate``: a small federation from its catalogue to its candidate, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.simulate.cli import app
from deploy.simulate.result import Simulation
from shared.cli import run
from shared.contracts.errors import ExitCode
from tests.client_node.training.site import make_home


@pytest.mark.servers
def test_hospitals_of_a_catalogue_train_and_the_server_is_measured(tmp_path: Path) -> None:
    catalogue = make_home(tmp_path / "node", train=24, val=6, test=6)
    done = subprocess.run(
        [
            sys.executable, "-m", "server.cli", "federate", "simulate", "--hospitals", "2,3",
            "--catalogue", str(catalogue), "--work", str(tmp_path / "work"), "--input-size", "64", "--rounds", "1",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "simulate: 3 hospitals" in done.stderr
    found = Simulation.model_validate_json(done.stdout)
    assert (found.what, found.trainers) == ("training", 2)
    assert [(scale.hospitals, scale.rounds, scale.updates) for scale in found.scales] == [(2, 1, 2), (3, 1, 3)]
    for scale in found.scales:
        assert scale.accuracy is not None
        assert scale.accuracy > 0.5  # three classes that colour and size tell apart
        assert scale.trainer_mb is not None
        assert scale.trainer_mb > scale.server_mb > 50  # torch is the trainers' alone
        assert 0.4 < scale.megabytes < 0.8  # packed


@pytest.mark.servers
def test_noise_at_the_centre_is_added_and_what_it_spends_is_told(tmp_path: Path) -> None:
    """Two rounds of twenty hospitals, the fewest: ε asked for is spent, and the noised model is judged."""
    catalogue = make_home(tmp_path / "node", train=40, val=12, test=12)
    done = subprocess.run(
        [
            sys.executable, "-m", "server.cli", "federate", "simulate", "--hospitals", "20", "--privacy", "central-dp",
            "--epsilon", "6", "--delta", "1e-4", "--clip", "0.5", "--catalogue", str(catalogue), "--sharing", "group",
            "--work", str(tmp_path / "work"), "--input-size", "32", "--rounds", "2", "--json",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = Simulation.model_validate_json(done.stdout)
    assert found.privacy == "central-dp (unit hospital, ε 6, δ 0.0001, clip 0.5)"
    [scale] = found.scales  # 10 hospitals, which are measured beside 20 otherwise, are too few
    assert (scale.hospitals, scale.rounds, scale.updates) == (20, 2, 40)
    assert scale.epsilon is not None
    assert 5.98 < scale.epsilon <= 6
    assert scale.accuracy is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hospitals", "ten"], "takes a number"),
        (["--hospitals", "1"], "from 2 to"),
        (["--hospitals", "3", "--strategy", "multikrum"], "needs 5 hospitals"),
        (["--hospitals", "3", "--updates-only", "--data", "x"], "takes no images"),
        (["--hospitals", "3", "--data", "x", "--catalogue", "y"], "not both"),
        (["--hospitals", "19", "--privacy", "central-dp"], "needs 20 of them; 19 have"),
        (["--hospitals", "20,30", "--privacy", "central-dp", "--strategy", "trimmed_mean"], "that averages"),
        (["--hospitals", "20", "--privacy", "central-dp", "--epsilon", "0.0001"], "cannot be kept over 2 rounds"),
        (["--hospitals", "20", "--privacy", "dp-sgd"], "choose none or central-dp"),
        (["--hospitals", "20", "--epsilon", "8"], "Without noise there is no epsilon"),
        (["--hospitals", "20", "--privacy", "central-dp", "--updates-only"], "adds no noise"),
    ],
)
def test_wrong_use_is_told(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", *arguments, "--json"])
    assert run(app) == ExitCode.USAGE
    assert said in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_home_without_images_and_a_work_folder_in_use_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", "--catalogue", str(tmp_path), "--json"])
    assert run(app) == ExitCode.NOT_FOUND
    (tmp_path / "kept").touch()
    monkeypatch.setattr("sys.argv", ["simulate", "--updates-only", "--work", str(tmp_path), "--json"])
    assert run(app) == ExitCode.CONFIG
    assert (tmp_path / "kept").exists()
