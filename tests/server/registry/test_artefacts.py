"""What a hospital without labels starts with: medians over the hospitals that evaluated."""

import pytest

from server.registry.artefacts import default_calibration, licence_of
from shared.contracts.laboratory import Dye
from shared.contracts.training import (
    CalibrationSummary,
    EvaluateReply,
    SiteMetrics,
)
from shared.vision import backbones

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


def stained(red: float, *, two: bool = True) -> EvaluateReply:
    dye = Dye(
        lab_mean=(60.0 + red, 20.0, -10.0),
        lab_deviation=(8.0, 7.0, 6.0),
        stains=((0.6, 0.8, 0.0), (red, 0.9, 0.3)) if two else None,
        strengths=(1.0 + red, 0.5) if two else None,
    )
    told = reply(1.0, (0.95, 0.5))
    return told.model_copy(update={"calibration": told.calibration.model_copy(update={"dye": dye})})


def test_the_card_tells_the_dye_that_the_model_knows_as_unit_vectors() -> None:
    found = default_calibration([stained(0.1), stained(0.2), stained(0.9), stained(0.95, two=False)]).dye
    assert found is not None
    assert found.lab_mean == pytest.approx((60.55, 20.0, -10.0))
    assert found.stains is not None
    assert found.stains[0] == pytest.approx((0.6, 0.8, 0.0))
    assert sum(value**2 for value in found.stains[1]) == pytest.approx(1.0)
    assert found.strengths == pytest.approx((1.2, 0.5))
    assert default_calibration([reply(1.0, (0.95, 0.5))]).dye is None


@pytest.mark.parametrize("backbone", backbones.names())
def test_licence_names_the_weights_that_the_model_began_with(backbone: str) -> None:
    said = licence_of(backbone)
    assert said.startswith(backbones.get(backbone).licence)
    assert f"those of {backbone}," in said
