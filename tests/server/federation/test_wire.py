"""Packed rounds at the centre: who gets them, what hospitals read of them, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from server.federation import checkpoints, service
from server.federation.fleet import Answer, Ask
from server.federation.privacy import Measure, RunPrivacy
from server.federation.rounds import conduct
from server.federation.schemas import RunView
from server.federation.start import base_keys
from server.federation.strategies.tensors import Tensors, stored_tensors
from server.runtime import Runtime
from shared.contracts.enrolment import PACKED_PROTOCOL
from shared.contracts.errors import HematovisionError
from shared.contracts.training import TensorForm, TrainRequest
from shared.packing import Reference, pack, pretrained, unpack
from tests.server.federation.fleet import RECIPE, MemoryFleet, Site, new_run, trains
from tests.server.federation.world import COORDINATOR, person, speaks

RANDOM = np.random.default_rng(0)
PRETRAINED: Tensors = {
    "tail.w": RANDOM.normal(size=(40, 50)).astype(np.float32),
    "head.w": RANDOM.normal(size=(8, 40)).astype(np.float32),
}
BASE = pretrained(PRETRAINED)
GOAL = {name: np.asarray(array + RANDOM.normal(size=array.shape), np.float32) for name, array in PRETRAINED.items()}


@pytest.fixture
def both(runtime: Runtime) -> Runtime:
    """A centre whose two hospitals' nodes read packed tensors, and that has the backbone's pretrained ones."""
    body, facts = base_keys(RECIPE)
    runtime.store.put(body, stored_tensors(PRETRAINED))
    runtime.store.put(facts, json.dumps({"base_sha256": "0" * 64}).encode())
    speaks(runtime.database, {"north": PACKED_PROTOCOL, "south": PACKED_PROTOCOL})
    return runtime


def learns(node_id: int, *, share: float = 0.5, read: Callable[[Ask], Tensors] | None = None) -> Site:
    """Return a site that goes ``share`` of the way to `GOAL`, by packed tensors and what it was installed with."""

    def site(ask: Ask) -> Answer | None:
        if not isinstance(ask.request, TrainRequest):
            return None
        received = (read or (lambda one: unpack(one.tensors, BASE)))(ask)
        new = {name: np.asarray(array + share * (GOAL[name] - array), np.float32) for name, array in received.items()}
        answer = trains(node_id, step=0.0)(replace(ask, tensors=bytes(save(received))))
        assert answer is not None
        return replace(answer, tensors=pack(new, Reference.of(received)))

    return site


def _conduct(runtime: Runtime, fleet: MemoryFleet, **run: object) -> RunView:
    """Play a run's rounds; its sites do not evaluate."""
    run_id = new_run(runtime, tensors=PRETRAINED, **run)  # type: ignore[arg-type]  # the keywords of new_run
    with pytest.raises(HematovisionError):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    with runtime.database.session(read_only=True) as session:
        return service.run_view(session, COORDINATOR, run_id)


def _distance(tensors: Tensors) -> float:
    return float(sum(np.linalg.norm(array - GOAL[name]) for name, array in tensors.items()))


def _forms(fleet: MemoryFleet) -> list[TensorForm]:
    return [ask.request.form for _, _, ask in fleet.asked if isinstance(ask.request, TrainRequest)]


def _said(view: RunView) -> list[str]:
    return [event.text for event in view.events if event.text.startswith("Tensors travel")]


def test_hospitals_that_read_packed_tensors_get_them_and_learn_by_them(both: Runtime) -> None:
    fleet = MemoryFleet({1: learns(1), 2: learns(2)})
    view = _conduct(both, fleet, rounds=10)
    assert _forms(fleet) == [TensorForm.PACKED] * 20
    assert view.rounds_done == 10
    found = load(checkpoints.load(both.store, view.id, 10))
    # Every round starts 3 % of the whole way off, of which half is made good; it does not add up over rounds.
    assert 0.005 < _distance(found) / _distance(PRETRAINED) < 0.03
    assert _said(view) == ["Tensors travel packed"]
    values = 40 * 50 + 8 * 40
    last = next(ask for group, _, ask in fleet.asked if group == "10")
    assert 5.3 * values / 8 < len(last.tensors) < 5.5 * values / 8 + 400
    told = view.round_views[-1].sites[0]
    assert told.bytes_down == len(last.tensors) + len(last.text) - len(last.request.nonce)
    assert told.bytes_up < 2 * values  # with its figures, less than the values alone as fp16


@pytest.mark.parametrize("older", [{"south": 2}, {}])
def test_one_older_node_keeps_all_at_fp16_and_is_named(runtime: Runtime, older: dict[str, int]) -> None:
    speaks(runtime.database, {"north": PACKED_PROTOCOL} | older)
    fleet = MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=1.0)})
    view = _conduct(runtime, fleet)
    assert view.rounds_done == 2
    assert all("form" not in json.loads(ask.text) for _, _, ask in fleet.asked)
    assert _said(view) == ["Tensors travel as fp16: south does not read the packed form; update their nodes"]


def test_other_hospitals_staff_are_not_told_who_is_older(runtime: Runtime) -> None:
    speaks(runtime.database, {"north": PACKED_PROTOCOL, "south": 1})
    run = _conduct(runtime, MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=1.0)})).id
    with runtime.database.session(read_only=True) as session:
        seen = service.run_view(session, person(COORDINATOR.role.HOSPITAL_IT, "north"), run)
    assert _said(seen) == []


def test_node_that_is_brought_to_this_version_during_a_run_gets_the_next_round_packed(both: Runtime) -> None:
    speaks(both.database, {"south": 2})
    fleet = MemoryFleet({})
    fleet.before = lambda group: speaks(both.database, {"south": PACKED_PROTOCOL}) if group == "1" else None
    either = [learns(number, read=None) for number in (1, 2)]
    older = [trains(number, step=0.0) for number in (1, 2)]

    def site(number: int) -> Site:
        return lambda ask: (
            either if isinstance(ask.request, TrainRequest) and ask.request.form is TensorForm.PACKED else older
        )[number - 1](ask)

    fleet.sites.update({1: site(1), 2: site(2)})
    view = _conduct(both, fleet, rounds=3)
    assert _forms(fleet) == [TensorForm.HALF] * 2 + [TensorForm.PACKED] * 4
    assert len(_said(view)) == 2


def test_secure_aggregation_keeps_its_own_form(both: Runtime) -> None:
    fleet = MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=1.0)})
    view = _conduct(both, fleet, privacy=RunPrivacy(measure=Measure.SECURE_AGGREGATION))
    assert _said(view) == [
        "Tensors travel as fp16: secure aggregation masks updates in a form of its own",
    ]


def test_base_that_the_run_was_not_launched_with_is_not_packed_against(both: Runtime) -> None:
    both.store.put(base_keys(RECIPE)[1], json.dumps({"base_sha256": "1" * 64}).encode())
    fleet = MemoryFleet({1: trains(1, step=1.0), 2: trains(2, step=1.0)})
    assert "other base weights" in _said(_conduct(both, fleet))[0]
    assert set(_forms(fleet)) == {TensorForm.HALF}


def _other(ask: Ask) -> bytes:
    return pack(PRETRAINED, Reference.of(PRETRAINED))


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (_other, "packed against others"),
        (lambda ask: bytes(save(unpack(ask.tensors, BASE))), "not in the agreed form"),
        (lambda ask: ask.tensors[:-3], "packed against others"),
        (lambda _ask: b"", "not in the agreed form"),
        (
            lambda ask: pack(
                {name: array * 1e5 for name, array in PRETRAINED.items()}, Reference.of(unpack(ask.tensors, BASE))
            ),
            "too large to be a model's",
        ),
    ],
)
def test_unsound_packed_update_is_refused_and_the_others_round_goes_on(
    both: Runtime, spoilt: Callable[[Ask], bytes], reason: str
) -> None:
    def bad(ask: Ask) -> Answer | None:
        answer = learns(2)(ask)
        return None if answer is None else replace(answer, tensors=spoilt(ask))

    view = _conduct(both, MemoryFleet({1: learns(1), 2: bad}), rounds=1, min_sites=1)
    assert view.rounds_done == 1
    assert reason in (view.round_views[0].sites[1].reason or "")
