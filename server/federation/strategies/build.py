"""Makes the strategy that a run has chosen. Imports Flower: only the ServerApp's process comes here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from server.federation.privacy import Measure, RunPrivacy, central_noise
from server.federation.strategies import registry
from server.federation.strategies.central_dp import CentralDp
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.fedopt import Adaptive, FedAvgM, ServerOptimised
from server.federation.strategies.fedprox import FedProx
from server.federation.strategies.guard import Guarded
from server.federation.strategies.multikrum import MultiKrum
from server.federation.strategies.port import Strategy
from server.federation.strategies.trimmed_mean import TrimmedMean

Make = Callable[[Any, Path], Strategy]  # Any: each takes its own parameters, those of its key below
_MAKE: Final[dict[type[registry.Parameters], Make]] = {
    registry.FedAvgParameters: lambda _given, _folder: FedAvg(),
    registry.FedProxParameters: lambda _given, _folder: FedProx(),
    registry.FedAvgMParameters: lambda given, _folder: ServerOptimised(FedAvgM(given)),
    registry.FedAdamParameters: lambda given, _folder: ServerOptimised(Adaptive(given)),
    registry.FedYogiParameters: lambda given, _folder: ServerOptimised(Adaptive(given)),
    registry.TrimmedMeanParameters: TrimmedMean,
    registry.MultiKrumParameters: MultiKrum,
}


def build(
    parameters: registry.Parameters, *, folder: Path, privacy: RunPrivacy | None = None, rounds: int = 1
) -> Strategy:
    """Return the chosen strategy; ``folder`` takes the temporary files of those that compare updates.

    Where ``privacy`` asks for noise at the centre, it is made to last for ``rounds``.
    """
    strategy = _MAKE[type(parameters)](parameters, folder)
    if privacy is not None and privacy.measure is Measure.CENTRAL_DP:
        noise = central_noise(privacy.epsilon, rounds, privacy.delta)
        return CentralDp(strategy, clip=privacy.clip, noise_multiplier=noise, delta=privacy.delta)
    return Guarded(strategy, parameters.norm_limit) if parameters.norm_limit else strategy
