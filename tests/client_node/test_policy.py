"""The hospital's policy is read for every request and refuses with a reason."""

from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.hours import within
from client_node.policy import load_policy, write_default_policy
from shared.contracts.errors import ConfigError, PolicyRefusedError
from shared.contracts.ontology import CellClass
from shared.contracts.training import CensusRequest, EvaluateRequest, Recipe, TrainRequest

RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE), local_epochs=2)


def request(**change: object) -> TrainRequest:
    values = {"run_key": "run-1", "round": 1, "rounds": 3, "base_sha256": "a" * 64, "recipe": RECIPE, "participants": 3}
    return TrainRequest.model_validate({**values, **change})


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    place = NodeHome(tmp_path)
    write_default_policy(place, release_key="0123456789abcdef")
    return place


def change(home: NodeHome, before: str, after: str) -> None:
    text = home.policy_file.read_text()
    assert before in text
    home.policy_file.write_text(text.replace(before, after))


def test_default_policy_allows_an_ordinary_round(home: NodeHome) -> None:
    policy = load_policy(home)
    policy.check_train(request(), 100)
    policy.check_train(CensusRequest(), 0)
    policy.check_send()
    assert policy.models.trusted_release_key == "0123456789abcdef"
    assert home.policy_file.stat().st_mode & 0o777 == 0o600


def test_default_policy_is_not_written_over_an_existing_one(home: NodeHome) -> None:
    change(home, "send_flagged = true", "send_flagged = false")
    write_default_policy(home, release_key="other")
    with pytest.raises(PolicyRefusedError, match="sending cases"):
        load_policy(home).check_send()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("enabled = true", "enabled = false", "federated training"),
        ('"train", "evaluate", "census"]\n#', '"evaluate"]\n#', 'purpose "train"'),
        ("most_epochs = 10", "most_epochs = 1", "1 epochs a round"),
        ("most_rounds = 200", "most_rounds = 2", "2 rounds a run"),
        ("least_participants = 2", "least_participants = 4", "4 hospitals or more"),
        ("least_examples = 16", "least_examples = 500", "500 labelled cells"),
        ('"00:00-24:00"', '"22:00-06:00"', "22:00-06:00 local time"),
    ],
)
def test_check_train_refuses_what_the_policy_forbids(home: NodeHome, before: str, after: str, reason: str) -> None:
    change(home, before, after)
    with pytest.raises(PolicyRefusedError, match=reason):
        load_policy(home).check_train(request(), 100, now=datetime(2026, 1, 1, 12, 0, tzinfo=UTC))
    assert [(entry.kind, entry.subject) for entry in Ledger(home).entries()] == [("refusal", "run-1")]


def test_evaluation_is_bound_by_participants_not_by_hours(home: NodeHome) -> None:
    change(home, '"00:00-24:00"', '"22:00-06:00"')
    evaluation = EvaluateRequest(run_key="r", base_sha256="a" * 64, recipe=RECIPE, participants=2)
    load_policy(home).check_train(evaluation, 0)
    with pytest.raises(PolicyRefusedError, match="2 hospitals"):
        load_policy(home).check_train(evaluation.model_copy(update={"participants": 1}), 0)


def test_datasets_restrict_sources(home: NodeHome) -> None:
    change(home, 'datasets = ["*"]', 'datasets = ["pbc"]')
    policy = load_policy(home)
    assert (policy.allows_source("pbc"), policy.allows_source("bccd")) == (True, False)


def test_check_send_refuses_past_the_daily_limit(home: NodeHome) -> None:
    load_policy(home).check_send(499)
    with pytest.raises(PolicyRefusedError, match="500 cases"):
        load_policy(home).check_send(500)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[training]\nhours = 'noon'", "training.hours"), ("[training", "cannot be read"), ("[nonsense]", "nonsense")],
)
def test_wrong_policy_allows_nothing_and_says_where(home: NodeHome, text: str, message: str) -> None:
    home.policy_file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_policy(home)


def test_missing_policy_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is allowed"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("hours", "moment", "expected"),
    [
        ("00:00-24:00", time(23, 59), True),
        ("08:00-17:00", time(8, 0), True),
        ("08:00-17:00", time(17, 0), False),
        ("22:00-06:00", time(23, 0), True),
        ("22:00-06:00", time(5, 59), True),
        ("22:00-06:00", time(6, 0), False),
    ],
)
def test_within_handles_midnight(hours: str, moment: time, expected: bool) -> None:
    assert within(hours, moment) is expected
