"""What a hospital without labels starts with: medians over the hospitals that evaluated."""

from server.registry.artefacts import default_calibration
from shared.contracts.training import CalibrationSummary, EvaluateReply, SiteMetrics

FOUND = SiteMetrics(n=50, loss=0.4, accuracy=0.9, macro_f1=0.9)


def reply(temperature: float, *quantiles: tuple[float, float]) -> EvaluateReply:
    summary = CalibrationSummary(temperature=temperature, conformal_quantile=quantiles[0][1], quantiles=quantiles)
    return EvaluateReply(candidate=FOUND, current=None, calibration=summary, seconds=1.0)


def test_the_card_tells_the_median_of_each_level_over_those_who_reach_it() -> None:
    found = default_calibration(
        [
            reply(1.0, (0.95, 0.5), (0.99, 0.55)),
            reply(1.2, (0.95, 0.6), (0.99, 0.8), (0.999, 0.9)),
            reply(2.0, (0.95, 0.9)),
        ]
    )
    assert (found.temperature, found.conformal_quantile) == (1.2, 0.6)
    assert found.quantiles == ((0.95, 0.6), (0.99, 0.675), (0.999, 0.9))


def test_a_higher_level_never_has_a_lower_quantile() -> None:
    found = default_calibration([reply(1.0, (0.95, 0.8)), reply(1.0, (0.95, 0.7), (0.99, 0.71))])
    assert found.quantiles == ((0.95, 0.75), (0.99, 0.75))
