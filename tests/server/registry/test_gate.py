"""No hospital may lose by a promotion."""

from server.registry.gate import judge
from shared.contracts.training import CalibrationSummary, EvaluateReply, SiteMetrics


def _reply(candidate: float, current: float | None, n: int = 100, own: float | None = None) -> EvaluateReply:
    def metrics(accuracy: float) -> SiteMetrics:
        return SiteMetrics(n=n, loss=0.5, accuracy=accuracy, macro_f1=accuracy)

    return EvaluateReply(
        candidate=metrics(candidate),
        own=metrics(own) if own is not None else None,
        current=metrics(current) if current is not None else None,
        calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
        seconds=1.0,
    )


def test_first_model_passes() -> None:
    assert judge({"a": _reply(0.5, None)}).passed


def test_small_loss_passes() -> None:
    assert judge({"a": _reply(0.89, 0.90), "b": _reply(0.95, 0.80)}).passed


def test_one_losing_hospital_blocks_with_its_figures() -> None:
    verdict = judge({"a": _reply(0.95, 0.80), "b": _reply(0.80, 0.90)})
    assert not verdict.passed
    assert [finding.hospital_id for finding in verdict.findings] == ["b"]
    assert "90.0% to 80.0%" in verdict.findings[0].text


def test_nothing_evaluated_blocks() -> None:
    assert not judge({}).passed
    assert not judge({"a": _reply(0.0, None, n=0)}).passed


def test_a_hospital_is_judged_by_what_would_run_there() -> None:
    assert judge({"a": _reply(0.80, 0.90, own=0.91)}).passed
    assert not judge({"a": _reply(0.95, 0.90, own=0.80)}).passed
