"""Launching a run from the command line: what of the recipe is given, and how a mistake is told."""

from pathlib import Path

import pytest

from server.db.session import Database
from server.federation import service
from server.models import Hospital
from server.settings import HOME_VARIABLE, load_settings
from shared.contracts.errors import ExitCode
from tests.server.federation.world import census, new_node, node_of
from tests.server.test_cli import Call

START = ("federate", "start", "--home")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    return Call(monkeypatch, capsys)


@pytest.fixture
def home(tmp_path: Path, call: Call) -> str:
    """A centre with a hospital that could train two classes."""
    home = tmp_path / "centre"
    call("init", "--home", str(home), "--public-url", "https://centre.example:8443")
    database = Database(load_settings(home).effective_database_url)
    with database.session() as session:
        session.add(Hospital(id="north", name="North"))
        session.flush()
        session.add(new_node("north"))
        session.flush()
        service.store_census(session, node_of("north"), census(neutrophil=30, lymphocyte=30))
    database.dispose()
    return str(home)


def test_start_takes_the_recipe_from_a_file_and_options_over_it(home: str, tmp_path: Path, call: Call) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('backbone = "resnet50"\nfrozen_stages = 1\nviews = 2\nproximal_mu = 0.5\n')
    options = ("--recipe", str(file), "--frozen-stages", "2", "--balance", "focal", "--local-epochs", "2", "--ema", "0")
    recipe = call(*START, home, *options)["recipe"]
    chosen = ("backbone", "frozen_stages", "views", "proximal_mu", "balance", "local_epochs", "ema", "head_epochs")
    assert [recipe[name] for name in chosen] == ["resnet50", 2, 2, 0.5, "focal", 2, 0.0, 0]
    assert call("federate", "status", "--home", home)["recipe"] == recipe


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--backbone", "resnet9000"), "at backbone: "),
        (("--learning-rate", "2"), "at learning_rate: "),
        (("--frozen-stages", "9"), "at frozen_stages: tf_efficientnet_lite0 has 7 stages"),
        (("--augmentation", "wild"), "at augmentation: "),
    ],
)
def test_start_names_the_wrong_field_in_one_line(home: str, call: Call, options: tuple[str, ...], told: str) -> None:
    call(*START, home, *options, status=ExitCode.USAGE)
    assert told in call.error
    assert call.error.count("\n") == 1
    assert call("federate", "list", "--home", home) == []


def test_start_takes_the_privacy_and_refuses_what_does_not_apply(home: str, call: Call) -> None:
    call(*START, home, "--epsilon", "4", status=ExitCode.USAGE)
    assert "Without noise there is no epsilon" in call.error
    call(*START, home, "--privacy", "central-dp", "--min-sites", "1", status=ExitCode.USAGE)
    assert "needs 20 of them" in call.error
    options = ("--privacy", "dp-sgd", "--epsilon", "4", "--clip", "0.5", "--unit", "patient", "--min-sites", "1")
    run = call(*START, home, *options)
    asked = {"measure": "dp-sgd", "unit": "patient", "epsilon": 4.0, "delta": 1e-5, "clip": 0.5}
    assert run["privacy"] == asked
    assert (run["recipe"]["balance"], run["recipe"]["head_epochs"]) == ("none", 0)
