"""What can be chosen, in words, and without Flower."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.federation.strategies.build import build
from server.federation.strategies.registry import OFFERED, FedProxParameters, MultiKrumParameters, StrategyName, parse
from shared.contracts.errors import UsageError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe

RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))


def test_every_name_is_offered_once_with_one_sentence_and_can_be_built(tmp_path: Path) -> None:
    assert list(OFFERED) == [
        StrategyName.FEDAVG,
        StrategyName.FEDPROX,
        StrategyName.FEDAVGM,
        StrategyName.FEDADAM,
        StrategyName.FEDYOGI,
        StrategyName.TRIMMED_MEAN,
        StrategyName.MULTIKRUM,
    ]
    assert set(OFFERED) == set(StrategyName)
    for name, kind in OFFERED.items():
        assert kind.sentence.endswith(".")
        assert all(field.title and field.description for field in kind.model_fields.values())
        build(parse(name, {}), folder=tmp_path)


def test_choice_survives_the_database() -> None:
    chosen = parse("multikrum", {"byzantine_sites": "2", "norm_limit": 0})
    assert chosen == MultiKrumParameters(byzantine_sites=2, norm_limit=0)
    assert parse(chosen.name, chosen.model_dump(mode="json")) == chosen


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("bulyan", {}, "There is no strategy of this name; choose one of fedavg, fedprox"),
        ("fedavg", {"tau": 1}, "FedAvg has no parameter tau; it has norm_limit."),
        ("fedadam", {"tau": 0}, "FedAdam cannot run with these parameters. Tau: Input should be greater than 0."),
        ("fedadam", {"beta_1": 1}, "Beta 1: Input should be less than 1"),
        ("fedadam", {"server_learning_rate": float("nan")}, "Server learning rate:"),
        ("fedyogi", {"server_learning_rate": "fast"}, "Server learning rate: Input should be a valid number"),
        ("fedprox", {"proximal_mu": 11}, "Pull: Input should be less than or equal to 10"),
        ("trimmed_mean", {"trim_share": 0.5}, "Trimmed share: Input should be less than 0.5"),
        ("multikrum", {"byzantine_sites": 1.5}, "Bad hospitals: Input should be a valid integer"),
        ("fedavg", {"norm_limit": -1}, "Largest update: Input should be greater than or equal to 0"),
    ],
)
def test_wrong_parameters_are_said_in_words(name: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(name, given)
    assert sentence in caught.value.message


def test_only_fedprox_asks_something_of_the_nodes() -> None:
    for name in OFFERED:
        asked = parse(name, {}).asked(RECIPE)
        assert asked.proximal_mu == (0.01 if name is StrategyName.FEDPROX else 0.0)
    assert FedProxParameters(proximal_mu=0.5).asked(RECIPE) == RECIPE.model_copy(update={"proximal_mu": 0.5})


@pytest.mark.parametrize(("name", "least"), [("fedavg", 1), ("fedadam", 1), ("trimmed_mean", 3), ("multikrum", 5)])
def test_robust_strategies_need_hospitals(name: str, least: int) -> None:
    assert parse(name, {}).least_sites == least
    assert MultiKrumParameters(byzantine_sites=3).least_sites == 9


def test_registry_and_web_process_start_without_flower() -> None:
    program = (
        "import sys; import server.federation.service, server.federation.strategies.registry, portal.main;"
        " sys.exit(any(name.split('.')[0] in {'flwr', 'torch'} for name in sys.modules))"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
