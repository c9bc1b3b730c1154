"""The hospital's policy is read for every request and refuses with a reason."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.policy import load_policy, write_default_policy
from shared.contracts.errors import ConfigError, PolicyRefusedError
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import Privacy
from shared.contracts.training import CensusRequest, DryRunRequest, EvaluateRequest, Masking, Recipe, TrainRequest

RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE), local_epochs=2)


NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)  # a Thursday


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
        ('"thu", "fri"', '"fri"', "at any hour on Monday, Tuesday, Wednesday, Friday, Saturday, Sunday only"),
        ('least_privacy = "none"', 'least_privacy = "dp-image"', "differential privacy for every image"),
        ("masked_only = false", "masked_only = true", "only under secure aggregation"),
        ('backbones = ["*"]', 'backbones = ["resnet50"]', "backbone tf_efficientnet_lite0"),
        ("most_megabytes = 256", "most_megabytes = 3", "3 MB of tensors"),
    ],
)
def test_check_train_refuses_what_the_policy_forbids(home: NodeHome, before: str, after: str, reason: str) -> None:
    change(home, before, after)
    with pytest.raises(PolicyRefusedError, match=reason):
        load_policy(home).check_train(request(), 100, size=4_000_000, now=NOON)
    [entry] = Ledger(home).entries()
    assert (entry.kind, entry.subject) == ("refusal", "run-1")
    assert entry.note.startswith("policy_refused: This hospital")


def test_round_beyond_those_that_the_run_claims_counts(home: NodeHome) -> None:
    with pytest.raises(PolicyRefusedError, match="200 rounds"):
        load_policy(home).check_train(request(round=201, rounds=3), 100)


PRIVATE = {"kind": "dp-sgd", "epsilon": 8.0, "delta": 1e-5, "clip": 1.0}


@pytest.mark.parametrize(
    ("floor", "asked", "allowed"),
    [
        ("none", None, True),
        ("dp-image", None, False),
        ("dp-image", {"kind": "none"}, False),
        ("dp-image", PRIVATE, True),
        ("dp-image", PRIVATE | {"unit": "patient"}, True),
        ("dp-image", PRIVATE | {"epsilon": 8.1}, False),
        ("dp-image", PRIVATE | {"delta": 2e-5}, False),
        ("dp-patient", PRIVATE, False),
        ("dp-patient", PRIVATE | {"unit": "patient"}, True),
    ],
)
def test_privacy_floor(home: NodeHome, floor: str, asked: dict[str, object] | None, allowed: bool) -> None:
    change(home, 'least_privacy = "none"', f'least_privacy = "{floor}"')
    privacy = None if asked is None else Privacy.model_validate(asked)
    assert (load_policy(home).why_not(request(privacy=privacy)) is None) is allowed


def test_dry_run_is_judged_as_its_first_round_would_be(home: NodeHome) -> None:
    asked = DryRunRequest(rounds=3, base_sha256="a" * 64, recipe=RECIPE, participants=3)
    policy = load_policy(home)
    assert policy.why_not(asked, 100, now=NOON) is None
    assert policy.why_not(asked, 15, now=NOON) == "This hospital trains only with 16 labelled cells or more."
    change(home, '"train", "evaluate"', '"evaluate"')
    assert load_policy(home).why_not(asked) == 'This hospital\'s policy does not allow the purpose "train".'
    assert Ledger(home).entries() == []


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


def test_single_data_sets_may_be_used_for_less(home: NodeHome) -> None:
    change(
        home,
        "[models]",
        '[[training.dataset]]\nname = "old"\npurposes = ["census"]\n'
        '[[training.dataset]]\nname = "secret"\npurposes = []\n[models]',
    )
    policy = load_policy(home)
    assert policy.purposes_of("pbc") == ("train", "evaluate", "census")
    assert policy.purposes_of("old") == ("census",)
    assert [policy.allows_source(name) for name in ("old", "secret")] == [True, False]
    assert [policy.allows_source("old", purpose) for purpose in ("train", "evaluate", "census")] == [False, False, True]
    assert not policy.figures_may_leave
    change(home, 'datasets = ["*"]', "datasets = []")
    assert load_policy(home).purposes_of("pbc") == ()
    change(home, 'purposes = ["train", "evaluate", "census"]', 'purposes = ["train", "evaluate"]')
    assert load_policy(home).purposes_of("old") == ()


def test_policy_of_an_earlier_release_is_read_as_it_was_meant(home: NodeHome) -> None:
    home.policy_file.write_text('[training]\npurposes = ["evaluate"]\ndatasets = ["pbc"]\nhours = "20:00-06:00"\n')
    policy = load_policy(home)
    assert policy.purposes_of("pbc") == ("evaluate",)
    assert (policy.share.time, policy.share.memory, policy.training.least_privacy) == (1.0, 1.0, "none")


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


def test_masked_only_allows_what_hides_the_update(home: NodeHome) -> None:
    change(home, "masked_only = false", "masked_only = true")
    policy = load_policy(home)
    asked = DryRunRequest(rounds=3, base_sha256="a" * 64, recipe=RECIPE, participants=3)
    assert "only under secure aggregation" in (policy.why_not(asked) or "")
    assert policy.why_not(asked.model_copy(update={"masked": True})) is None
    masking = Masking(exchange="0" * 32, shares=())
    assert policy.why_not(request(masking=masking)) is None
