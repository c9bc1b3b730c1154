"""No hospital may lose by a promotion: not in accuracy, and in no class that it has enough of."""

import pytest

from server.registry.gate import EVERYWHERE, TOLERANCE, judge
from shared.contracts.ontology import CellClass
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


def test_a_hospital_that_trained_and_did_not_evaluate_blocks_by_its_name() -> None:
    verdict = judge({"a": _reply(0.9, 0.9)}, trained=["a", "b"])
    assert (verdict.passed, [(finding.hospital_id, finding.kind) for finding in verdict.findings]) == (
        False,
        [("b", "unheard")],
    )
    assert judge({"a": _reply(0.9, 0.9)}, trained=["a"]).passed


BASOPHIL, BLAST = CellClass.BASOPHIL, CellClass.BLAST


def _recalls(n: int, before: int, after: int | None, cls: CellClass = BASOPHIL) -> EvaluateReply:
    """Return an answer in which ``before`` and ``after`` of n cells of a class are read rightly, and accuracy stays."""

    def metrics(right: int | None) -> SiteMetrics:
        told = {} if right is None else {cls: right / n}
        return SiteMetrics(n=500, loss=0.5, accuracy=0.9, macro_f1=0.9, recall=told, support=dict.fromkeys(told, n))

    return _reply(0.9, 0.9).model_copy(update={"candidate": metrics(after), "current": metrics(before)})


@pytest.mark.parametrize(
    ("n", "before", "after", "passes"),
    [
        (10, 10, 7, True),  # 70 %: within 69.2-100 %
        (10, 10, 6, False),
        (20, 20, 17, True),  # 85 %: within 83.2-100 %
        (20, 20, 16, False),
        (400, 380, 371, True),  # 92.8 %: within 92.4-96.9 %
        (400, 380, 369, False),
        (5000, 4900, 4801, True),  # outside the interval, but 1.98 points
        (5000, 4900, 4799, False),
        (9, 9, 0, True),  # too few cells of it at this hospital
    ],
)
def test_a_class_blocks_where_its_fall_is_more_than_tolerated_and_more_than_chance(
    n: int, before: int, after: int, passes: bool
) -> None:
    verdict = judge({"a": _recalls(n, before, after)})
    assert verdict.passed is passes
    found = verdict.notes if n < 10 else verdict.findings
    assert [(finding.hospital_id, finding.cls, finding.n) for finding in found] == (
        [("a", BASOPHIL, n)] if n < 10 or not passes else []
    )


def test_a_class_that_the_candidate_knows_no_more_has_fallen_to_nothing() -> None:
    [finding] = judge({"a": _recalls(40, 30, None)}).findings
    assert (finding.before, finding.after, finding.kind) == (0.75, 0.0, "recall")
    assert finding.text.startswith("Recall of basophil falls from 75.0% to 0.0% on 40 held-out cells")


def test_a_rare_class_that_every_hospital_has_too_few_cells_of_is_judged_over_all() -> None:
    verdict = judge({name: _recalls(6, 6, 2, BLAST) for name in "abc"})
    assert [(finding.hospital_id, finding.cls, finding.n) for finding in verdict.findings] == [(EVERYWHERE, BLAST, 18)]
    assert [note.hospital_id for note in verdict.notes] == ["a", "b", "c"]


def test_a_hospital_may_be_stricter_than_the_network_and_never_laxer() -> None:
    replies = {"a": _reply(0.89, 0.90, n=1000), "b": _reply(0.87, 0.90, n=1000)}
    assert [finding.hospital_id for finding in judge(replies).findings] == ["b"]
    strict = judge(replies, {"a": 0.005, "b": 0.5})
    assert [(finding.hospital_id, finding.allowed) for finding in strict.findings] == [("a", 0.005), ("b", TOLERANCE)]


def test_a_single_cell_may_always_be_lost() -> None:
    assert judge({"a": _reply(0.7, 0.8, n=10)}).passed
    assert not judge({"a": _reply(0.6, 0.8, n=10)}).passed


def test_a_hospital_is_judged_by_what_would_run_there() -> None:
    assert judge({"a": _reply(0.80, 0.90, own=0.91)}).passed
    assert not judge({"a": _reply(0.95, 0.90, own=0.80)}).passed
