"""What noisy steps spend, against Opacus' own accountant and the Gaussian mechanism's known figures."""

import math

import pytest
from opacus.accountants.rdp import RDPAccountant

from client_node.training.accounting import Noisy, epsilon_of, noise_for


def _opacus(spent: list[Noisy], delta: float) -> float:
    accountant = RDPAccountant()
    accountant.history = [(one.noise_multiplier, one.sample_rate, one.steps) for one in spent]
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize(
    "spent",
    [
        [Noisy(1.5, 0.2, 100)],
        [Noisy(4.0, 1.0, 40)],
        [Noisy(1.5, 0.2, 60), Noisy(2.0, 0.25, 30), Noisy(1.5, 0.2, 40)],
    ],
)
def test_epsilon_is_opacus_own_and_never_below_it(spent: list[Noisy]) -> None:
    ours, theirs = epsilon_of(spent, 1e-5), _opacus(spent, 1e-5)
    assert theirs <= ours + 1e-9
    assert ours == pytest.approx(theirs, rel=0.02)


def test_nothing_spends_nothing_and_parts_add_up_below_their_sum() -> None:
    assert epsilon_of([], 1e-5) == 0.0
    one, two = Noisy(2.0, 0.5, 10), Noisy(3.0, 1.0, 5)
    alone = epsilon_of([one], 1e-5) + epsilon_of([two], 1e-5)
    assert max(epsilon_of([one], 1e-5), epsilon_of([two], 1e-5)) < epsilon_of([one, two], 1e-5) < alone


def test_one_full_step_is_the_gaussian_mechanism() -> None:
    # Its Rényi divergence at order a is a / (2 s²); the best order then has a closed form within a few percent.
    noise, delta = 4.0, 1e-5
    rho = 1 / (2 * noise**2)
    assert epsilon_of([Noisy(noise, 1.0, 1)], delta) < rho + 2 * math.sqrt(rho * math.log(1 / delta))


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(8.0, 1.0, 25), (8.0, 0.25, 50), (1.0, 0.5, 4)])
def test_noise_is_the_least_that_keeps_the_promise(epsilon: float, rate: float, steps: int) -> None:
    noise = noise_for(epsilon, 1e-5, sample_rate=rate, steps=steps)
    assert noise is not None
    assert epsilon_of([Noisy(noise, rate, steps)], 1e-5) <= epsilon
    assert epsilon_of([Noisy(noise * 0.99, rate, steps)], 1e-5) > epsilon


def test_what_was_spent_before_leaves_less() -> None:
    alone = noise_for(8.0, 1e-5, sample_rate=1.0, steps=10)
    after = noise_for(8.0, 1e-5, sample_rate=1.0, steps=10, before=[Noisy(4.0, 1.0, 20)])
    assert alone is not None
    assert after is not None
    assert after > alone
    assert noise_for(1.0, 1e-5, sample_rate=1.0, steps=10, before=[Noisy(1.0, 1.0, 10)]) is None
