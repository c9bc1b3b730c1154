"""Private training as a hospital governs it: whose presence is hidden, with how much noise, and what it spends.

A round is charged before it is trained, in `privacy.json` of the node's home: a trainer that is killed half-way has
spent what it may have released. Only a round whose update cannot have left is trained again for the same charge; one
that may have left is answered with the same update (`client_node.training.kept_update`), or charged again.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from client_node.budget import Budget, Charge, read_budget
from client_node.datasets.labelled import LabelledCell
from client_node.home import NodeHome
from client_node.policy import Policy
from client_node.policy_sections import EVERY
from client_node.training.accounting import MOST_NOISE, Noisy, epsilon_of, noise_for
from client_node.training.manifest import write_atomically
from client_node.training.private_loop import CENTRE, Unit
from shared.contracts.errors import PolicyRefusedError, UsageError
from shared.contracts.privacy import Privacy, PrivacyKind, PrivacySpent, PrivacyUnit
from shared.contracts.training import Balance, DryRunRequest, EvaluateRequest, Recipe, TrainRequest

_COARSE: Final = 10
_MUCH_MORE: Final = 2.0
"""A round that needs so many times the noise of an earlier one of its run would only spoil the average."""


@dataclass(frozen=True, slots=True)
class PrivateRound:
    """How one round is trained, and what it and the rounds after it spend."""

    units: tuple[Unit, ...]
    noise: Noisy
    clip: float
    spent: PrivacySpent
    """By this run, once the round is trained: exact, for the node's own record."""
    promised: float
    """ε of the whole run."""

    @property
    def told(self) -> PrivacySpent:
        """What the centre hears: the exact figure follows from the number of units, and so would tell it."""
        epsilon = min(math.ceil(self.spent.epsilon * 10) / 10, self.promised)
        return self.spent.model_copy(update={"epsilon": epsilon})


def is_private(privacy: Privacy | None) -> bool:
    """Whether a request asks for noise."""
    return privacy is not None and privacy.kind is PrivacyKind.DP_SGD


def hides_training(home: Path, policy: Policy, request: EvaluateRequest) -> bool:
    """Whether an evaluation must tell nothing of the cells that the run trained on.

    The node's own record counts, not only what the request says: a centre could leave that out.
    """
    if is_private(request.privacy) or policy.training.least_privacy != "none":
        return True
    return bool(read_budget(home).of_run(request.run_key))


def coarse(count: int) -> int:
    """Return how many training cells a private answer tells of: to the nearest ten."""
    return max(_COARSE, round(count / _COARSE) * _COARSE)


def planned(
    home: Path, policy: Policy, request: TrainRequest | DryRunRequest, cells: Sequence[LabelledCell]
) -> PrivateRound | None:
    """Return how a round on ``cells`` is trained privately; None where the request does not ask for it.

    Raises:
        UsageError: what it asks cannot be kept.
        PolicyRefusedError: the run would go beyond the hospital's budget.
    """
    privacy = request.privacy
    if privacy is None or not is_private(privacy) or not cells:
        return None
    _check_recipe(request.recipe)
    units = units_of(cells, privacy.unit, policy.training.groups_are_patients)
    number = request.round if isinstance(request, TrainRequest) else 1
    key = request.run_key if isinstance(request, TrainRequest) else ""
    budget = _without_open(read_budget(home), key, number)
    rate = min(1.0, request.recipe.batch_size / len(units))
    steps = request.recipe.local_epochs * steps_an_epoch(len(units), request.recipe.batch_size)
    left = max(request.rounds - number, 0) + 1
    before = _spent(budget.of_run(key))
    ahead = replace(CENTRE, steps=left)
    earlier = [one.noise_multiplier for one in budget.of_run(key)]
    noise = _noise(privacy, [*before, ahead], earlier, rate, steps * left)
    everything = [*_spent(budget.charges), ahead, Noisy(noise, rate, steps * left)]
    limit = policy.training.total_epsilon
    if epsilon_of(everything, policy.training.total_delta) > limit:
        raise PolicyRefusedError(
            f"The run would go beyond this hospital's privacy budget for all runs together (ε ≤ {limit:g} at δ ="
            f" {policy.training.total_delta:g}): ask for a smaller ε or fewer rounds."
        )
    promised, delta, clip = _promise(privacy)
    round_ = Noisy(noise, rate, steps)
    epsilon = epsilon_of([*before, CENTRE, round_], delta)
    spent = PrivacySpent(unit=privacy.unit, epsilon=epsilon, delta=delta)
    return PrivateRound(units=units, noise=round_, clip=clip, spent=spent, promised=promised)


def charge(home: Path, policy: Policy, request: TrainRequest, round_: PrivateRound) -> None:
    """Write down what a round spends, before it is trained.

    Raises:
        NoSpaceError: the disk is full, and so nothing may be trained.
    """
    budget = _without_open(read_budget(home), request.run_key, request.round)
    new = Charge(
        run_key=request.run_key,
        round=request.round,
        unit=round_.spent.unit,
        noise_multiplier=round_.noise.noise_multiplier,
        sample_rate=round_.noise.sample_rate,
        steps=round_.noise.steps,
        centre_noise_multiplier=CENTRE.noise_multiplier,
        run_epsilon=round_.spent.epsilon,
        run_delta=round_.spent.delta,
    )
    charges, delta = (*budget.charges, new), policy.training.total_delta
    _write(home, Budget(charges=charges, epsilon=epsilon_of(_spent(charges), delta), delta=delta))


def is_charged(home: Path, request: TrainRequest) -> bool:
    """Whether the record has this round of this run, released or not."""
    return any(_is_of(one, request.run_key, request.round) for one in read_budget(home).charges)


def release(home: Path, request: TrainRequest) -> None:
    """Write down that a round's update may have left from now on."""
    budget = read_budget(home)
    charges = tuple(
        one.model_copy(update={"released": True}) if _is_of(one, request.run_key, request.round) else one
        for one in budget.charges
    )
    _write(home, budget.model_copy(update={"charges": charges}))


def units_of(cells: Sequence[LabelledCell], unit: PrivacyUnit, patients: Sequence[str]) -> tuple[Unit, ...]:
    """Return the positions of the cells of each image, or each patient; ``patients``: sources whose groups are such.

    Raises:
        UsageError: it is not known of all cells which patient they are of.
    """
    if unit is PrivacyUnit.PATIENT and EVERY not in patients and {cell.source for cell in cells} - set(patients):
        raise UsageError(
            "This hospital's catalogue does not say of all its images which patient they are of, so that it cannot"
            " hide patients: ask for images as the unit."
        )
    found: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        found.setdefault(cell.group if unit is PrivacyUnit.PATIENT else str(cell.path), []).append(place)
    return tuple(np.asarray(places, np.int64) for places in found.values())


def steps_an_epoch(units: int, batch: int) -> int:
    """Return in how many steps each unit is drawn once on average."""
    return max(1, -(-units // batch))


def _noise(privacy: Privacy, before: Sequence[Noisy], earlier: Sequence[float], rate: float, steps: int) -> float:
    """Return the noise of this round and those to come; ``earlier``: of the run's rounds so far."""
    epsilon, delta, _ = _promise(privacy)
    known = [privacy.noise_multiplier] if privacy.noise_multiplier else earlier[-1:]
    for noise in known:  # the run's own as long as it keeps the promise, so that its rounds are alike
        if epsilon_of([*before, Noisy(noise, rate, steps)], delta) <= epsilon:
            return noise
    stated = privacy.noise_multiplier
    found = None if stated else noise_for(epsilon, delta, sample_rate=rate, steps=steps, before=before)
    if found is None or any(found > _MUCH_MORE * one for one in earlier):
        raise UsageError(
            f"No noise of at most {stated or MOST_NOISE:g} times the clipping bound keeps ε = {epsilon:g} at δ ="
            f" {delta:g} here: ask for a larger ε or fewer rounds. A run whose ε is spent, by a repeated round say,"
            " trains no further."
        )
    return found


def _check_recipe(recipe: Recipe) -> None:
    asked = {
        "a sampler or loss that counts the classes (ask for balance none)": recipe.balance is not Balance.NONE,
        "the choice of an epoch (ask for patience 0)": recipe.patience > 0,
        "FedProx's pull (ask for proximal_mu 0)": recipe.proximal_mu > 0,
    }
    if wrong := [what for what, there in asked.items() if there]:
        raise UsageError(f"Training with differential privacy has no room for {'; for '.join(wrong)}.")


def _without_open(budget: Budget, run_key: str, number: int) -> Budget:
    """Leave out the charge of a round that was never released: it is trained again in its place."""
    kept = tuple(one for one in budget.charges if one.released or not _is_of(one, run_key, number))
    return budget.model_copy(update={"charges": kept})


def _is_of(charge: Charge, run_key: str, number: int) -> bool:
    return charge.run_key == run_key and charge.round == number


def _spent(charges: Sequence[Charge]) -> list[Noisy]:
    steps = [Noisy(one.noise_multiplier, one.sample_rate, one.steps) for one in charges]
    return steps + [Noisy(one.centre_noise_multiplier, 1.0, 1) for one in charges]


def _write(home: Path, budget: Budget) -> None:
    file = NodeHome(home).budget
    write_atomically(file, budget.model_dump_json(indent=1).encode())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must outlive a power cut
    finally:
        os.close(folder)


def _promise(privacy: Privacy) -> tuple[float, float, float]:
    """Return (ε, δ, clip)."""
    found = (privacy.epsilon, privacy.delta, privacy.clip)
    if None in found:  # the contract's own check forbids it
        raise UsageError("Training with differential privacy needs epsilon, delta and clip.")
    return found  # type: ignore[return-value]  # none is None
