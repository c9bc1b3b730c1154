"""The duty cycle of training, and the policy's word while a round is under way."""

from pathlib import Path

import pytest

from client_node.training.share import DutyCycle, Hold
from shared.contracts.errors import PolicyRefusedError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe, TrainRequest

REQUEST = TrainRequest(
    run_key="run-1",
    round=1,
    rounds=1,
    base_sha256="0" * 64,
    recipe=Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE)),
    participants=3,
)


class Clock:
    """Time that passes when told, and when slept; `oversleep` is how much longer each sleep takes."""

    def __init__(self, oversleep: float = 0.0) -> None:
        self.now, self.slept, self._oversleep = 0.0, 0.0, oversleep

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self._oversleep
        self.slept += seconds + self._oversleep


def _work(cycle: DutyCycle, clock: Clock, *, steps: int, seconds: float, waits: float = 0.0) -> None:
    for _ in range(steps):
        clock.now += seconds
        cycle.rest()
        clock.now += waits
        cycle.resume()


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seconds", [0.001, 0.1, 3.0])
@pytest.mark.parametrize("oversleep", [0.0, 0.02])
def test_computing_takes_its_share_of_the_time(share: float, seconds: float, oversleep: float) -> None:
    clock = Clock(oversleep)
    cycle = DutyCycle(share, clock=clock, sleep=clock.sleep)
    _work(cycle, clock, steps=2000, seconds=seconds)
    assert (clock.now - clock.slept) / clock.now == pytest.approx(share, rel=0.05)


def test_whole_share_never_rests_nor_waits_for_the_device() -> None:
    clock, settled = Clock(), list[int]()
    cycle = DutyCycle(1.0, clock=clock, sleep=clock.sleep, settle=lambda: settled.append(1))
    _work(cycle, clock, steps=100, seconds=1.0)
    assert (clock.slept, settled) == (0.0, [])


def test_device_is_waited_for_before_its_work_is_counted() -> None:
    clock = Clock()

    def settle() -> None:
        clock.now += 0.4  # what was still running on the device

    cycle = DutyCycle(0.5, clock=clock, sleep=clock.sleep, settle=settle)
    _work(cycle, clock, steps=1, seconds=0.1)
    assert clock.slept == pytest.approx(0.5)


def test_waiting_for_an_urgent_smear_is_no_work() -> None:
    clock = Clock()
    cycle = DutyCycle(0.5, clock=clock, sleep=clock.sleep)
    _work(cycle, clock, steps=10, seconds=0.1, waits=60.0)
    assert clock.slept == pytest.approx(1.0)


def test_stopping_ends_a_rest() -> None:
    clock = Clock()
    cycle = DutyCycle(0.05, clock=clock, sleep=clock.sleep)
    clock.now = 100.0  # 1,900 s of rest are owed
    cycle.rest(lambda: clock.slept > 3)
    assert 3 < clock.slept <= 4


def test_policy_that_changes_while_a_round_is_under_way_ends_it(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("")
    clock = Clock()
    hold = Hold(tmp_path, REQUEST, clock=clock)
    (tmp_path / "policy.toml").write_text("[training]\nenabled = false\n")
    clock.now = 9.0
    hold.between(lambda: False)  # not looked at yet
    clock.now = 10.0
    with pytest.raises(PolicyRefusedError, match="at the moment"):
        hold.between(lambda: False)
