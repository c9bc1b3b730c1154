"""A hospital's node that is hostile, or whose answers something on the way alters: it hurts no round but its own."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sqlmodel import select

from server.federation import checkpoints, service
from server.federation.answers import read_reply
from server.federation.fleet import Answer, Ask
from server.federation.rounds import conduct
from server.federation.server_app import _answer
from server.federation.states import RunState, SiteState
from server.federation.strategies.fedavg import FedAvg
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import wire_tensors
from server.federation.strategies.updates import verify
from server.models import AuditEntry
from server.runtime import Runtime
from shared.contracts.errors import HematovisionError, RunFailedError
from shared.contracts.training import CalibrationSummary, EvaluateReply, Refusal, SiteMetrics, TrainReply, TrainRequest
from shared.tensors import ARRAY_NAME, RECORD_ARRAYS, RECORD_CONFIG, STYPE
from tests.hostile import bodies, texts
from tests.server.federation.fleet import RECEIVED, MemoryFleet, Site, new_run, sealed, trains
from tests.server.federation.world import COORDINATOR

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
SHAPES = {"w": (2, 2), "finder.w": (2,)}
SENT = bytes(save({name: np.zeros(shape, np.float16) for name, shape in SHAPES.items()}))
TRAINED = TrainReply(examples=7, train_loss=0.5, received=RECEIVED, seconds=0.1, manifest_sha256="0" * 64, boxes=3)
EVALUATED = EvaluateReply(
    candidate=SiteMetrics(n=3, loss=0.1, accuracy=1.0, macro_f1=1.0),
    current=None,
    calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9, density=(0.1, 0.2, 0.3)),
    seconds=1.0,
)
REFUSED = Refusal(code="policy_refused", reason="No.")
_replies = st.one_of([texts(reply.model_dump(mode="json")) for reply in (TRAINED, EVALUATED, REFUSED)])
_updates = st.one_of(
    st.tuples(_replies, st.just(SENT)),
    st.tuples(st.just(TRAINED.model_dump_json()), bodies(SHAPES)),
    st.tuples(_replies, bodies(SHAPES)),
)


@settings(max_examples=300, deadline=None)
@given(update=_updates)
def test_any_answer_is_used_or_refused_and_what_is_averaged_can_travel(update: tuple[str, bytes]) -> None:
    text, tensors = update
    sent = Sent.of(1, SENT)
    average = FedAvg().begin(sent)
    average.add(verify("north", SENT, sent, examples=10, boxes=1))
    try:
        reply = read_reply(Answer(1, text, tensors))
        if isinstance(reply, TrainReply):
            average.add(verify("south", tensors, sent, examples=reply.examples, boxes=reply.boxes))
    except HematovisionError:
        assert average.updates == 1
    travelling = load(wire_tensors(average.result().tensors))
    assert {name: array.shape for name, array in travelling.items()} == SHAPES


def _run(runtime: Runtime, rounds: int = 1) -> str:
    start = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    return new_run(runtime, rounds=rounds, min_sites=1, tensors=start)


def _conduct(runtime: Runtime, run_id: str, south: Site, north: Site | None = None) -> None:
    """Conduct the run with an honest hospital, north; nobody evaluates, so that it always ends there."""
    fleet = MemoryFleet({1: north or trains(1, step=1.0), 2: south})
    with pytest.raises(HematovisionError, match="No hospital evaluated"):
        conduct(runtime, run_id, fleet, flower_run_id=run_id, breath_seconds=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(update=_updates, evaluated=_replies)
def test_hostile_node_never_ends_the_round_of_the_others(
    runtime: Runtime, update: tuple[str, bytes], evaluated: str
) -> None:
    def hostile(ask: Ask) -> Answer:
        if isinstance(ask.request, TrainRequest):
            return Answer(2, update[0], update[1])
        # An answer that evaluates would register the candidate: that is another test's.
        return Answer(2, "{}" if '"candidate"' in evaluated else evaluated, b"")

    run_id = _run(runtime)
    _conduct(runtime, run_id, hostile)
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
    north, south = view.round_views[0].sites
    assert (north.state, view.rounds_done) == (SiteState.REPLIED, 1)
    assert south.state in (SiteState.REPLIED, SiteState.REFUSED)
    assert json.loads(view.model_dump_json())


@pytest.mark.parametrize("value", [10**30, -1, float("nan")])
@pytest.mark.parametrize("field", ["examples", "feedback_cells", "boxes", "seconds", "n"])
def test_impossible_figures_are_refused(runtime: Runtime, field: str, value: float) -> None:
    claimed = TRAINED.model_dump(mode="json")
    claimed["received" if field == "n" else field] = {**claimed["received"], "n": value} if field == "n" else value
    run_id = _run(runtime)
    _conduct(runtime, run_id, lambda _ask: Answer(2, json.dumps(claimed), SENT))
    with runtime.database.session(read_only=True) as session:
        south = service.run_view(session, COORDINATOR, run_id).round_views[0].sites[1]
    assert south.state is SiteState.REFUSED


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _honest(ask: Ask) -> Answer:
    answer = trains(2, step=5.0)(ask)
    assert answer is not None
    return sealed(answer, ask)


ALTERED: dict[str, tuple[Callable[[Answer], Answer], str]] = {
    "tensors": (lambda answer: replace(answer, tensors=_flip(answer.tensors)), "update was altered"),
    "figures": (
        lambda answer: replace(answer, reply=answer.reply.replace('"examples":10', '"examples":11')),
        "answer was altered",
    ),
    "no seal": (lambda answer: replace(answer, seal=" "), "not signed"),
    "seal": (
        lambda answer: replace(answer, seal=answer.seal.replace('"signature":"', '"signature":"A')),
        "does not match",
    ),
}


@pytest.mark.parametrize("what", ALTERED)
def test_answer_altered_on_the_way_is_refused_named_and_audited(runtime: Runtime, what: str) -> None:
    alter, reason = ALTERED[what]
    run_id = _run(runtime)
    _conduct(runtime, run_id, lambda ask: alter(_honest(ask)) if isinstance(ask.request, TrainRequest) else None)
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
        [entry] = session.exec(select(AuditEntry).where(AuditEntry.action == "federation.refused")).all()
    south = view.round_views[0].sites[1]
    assert (south.state, reason in (south.reason or "")) == (SiteState.REFUSED, True)
    assert any(event.text.startswith("south did not train: ") and reason in event.text for event in view.events)
    assert (entry.subject, entry.data["run"], entry.data["code"]) == ("hospital:south", run_id, "signature_invalid")
    assert float(load(checkpoints.load(runtime.store, run_id, 1))["w"][0, 0]) == 1.0


def test_answer_of_an_earlier_round_is_refused(runtime: Runtime) -> None:
    kept: list[Answer] = []

    def replays(ask: Ask) -> Answer | None:
        if not isinstance(ask.request, TrainRequest):
            return None
        if not kept:
            kept.append(_honest(ask))
        return kept[0]

    run_id = _run(runtime, rounds=2)
    _conduct(runtime, run_id, replays)
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
    souths = [row.sites[1] for row in view.round_views]
    assert [south.state for south in souths] == [SiteState.REPLIED, SiteState.REFUSED]
    assert "another request" in (souths[1].reason or "")


def test_answer_to_the_same_round_begun_again_is_refused(runtime: Runtime) -> None:
    kept: list[Answer] = []

    def first_try(ask: Ask) -> Answer | None:
        if not kept:
            kept.append(_honest(ask))
            raise KeyboardInterrupt
        return kept[0] if isinstance(ask.request, TrainRequest) else None

    run_id = _run(runtime)
    fleet = MemoryFleet({1: trains(1, step=1.0), 2: first_try})
    with pytest.raises(KeyboardInterrupt):
        conduct(runtime, run_id, fleet, flower_run_id=run_id, breath_seconds=0)
    _conduct(runtime, run_id, first_try)
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
    assert "another request" in (view.round_views[0].sites[1].reason or "")


def test_answer_given_twice_counts_once(runtime: Runtime) -> None:
    run_id = _run(runtime)

    class Echo(MemoryFleet):
        def ask(self, asks, **more):  # type: ignore[no-untyped-def]  # as its parent's
            for answer in super().ask(asks, **more):
                yield answer
                yield answer

    fleet = Echo({1: trains(1, step=1.0), 2: trains(2, step=5.0)})
    with pytest.raises(HematovisionError, match="No hospital evaluated"):
        conduct(runtime, run_id, fleet, flower_run_id=run_id, breath_seconds=0)
    assert float(load(checkpoints.load(runtime.store, run_id, 1))["w"][0, 0]) == 3.0
    with runtime.database.session(read_only=True) as session:
        assert service.run_view(session, COORDINATOR, run_id).round_views[0].replied == 2


def test_answer_of_another_hospitals_node_is_refused(runtime: Runtime) -> None:
    run_id = _run(runtime)

    def borrowed(ask: Ask) -> Answer | None:
        norths = trains(1, step=5.0)(ask)
        return replace(sealed(norths, ask), node_id=2) if norths is not None else None

    _conduct(runtime, run_id, borrowed)
    with runtime.database.session(read_only=True) as session:
        south = service.run_view(session, COORDINATOR, run_id).round_views[0].sites[1]
    assert (south.state, "does not match" in (south.reason or "")) == (SiteState.REFUSED, True)


def test_refusal_is_shown_in_one_line_with_its_code_in_the_audit(runtime: Runtime) -> None:
    run_id = _run(runtime)
    text = Refusal(
        code="policy_refused", reason="Trains\n2026-01-01 ERROR \x1b[31mforged at night only."
    ).model_dump_json()

    def refuses(ask: Ask) -> Answer:
        return Answer(2, text, b"", seal=" ") if isinstance(ask.request, TrainRequest) else Answer(2, text, b"")

    _conduct(runtime, run_id, refuses)
    with runtime.database.session(read_only=True) as session:
        view = service.run_view(session, COORDINATOR, run_id)
        entries = session.exec(select(AuditEntry).where(AuditEntry.action == "federation.refused")).all()
    said = "Trains 2026-01-01 ERROR [31mforged at night only."
    assert view.round_views[0].sites[1].reason == f"(unsigned) {said}"
    assert f"south did not evaluate: {said}" in [event.text for event in view.events]
    assert [(entry.data["what"], entry.data["code"]) for entry in entries] == [
        ("round 1", "policy_refused"),
        ("evaluation", "policy_refused"),
    ]
    assert view.state is RunState.FAILED


_records = st.one_of(
    st.builds(lambda text: ConfigRecord({"reply": text, "seal": ""}), st.text(max_size=20)),
    st.builds(lambda value: ConfigRecord({"reply": value}), st.integers(0, 9) | st.binary(max_size=9)),
    st.builds(lambda value: ConfigRecord({"reply": "{}", "seal": value}), st.binary(max_size=9)),
    st.just(ConfigRecord({})),
    st.just(MetricRecord({"reply": 1})),
    st.just(ArrayRecord({})),
)
_arrays = st.one_of(
    st.builds(
        lambda name, body: ArrayRecord({name: Array("uint8", (len(body),), STYPE, body)}),
        st.sampled_from([ARRAY_NAME, "other"]),
        st.binary(max_size=9),
    ),
    st.just(ArrayRecord({})),
    st.just(ConfigRecord({"tensors": "x"})),
)


@settings(max_examples=100, deadline=None)
@given(config=st.none() | _records, arrays=st.none() | _arrays)
def test_any_message_from_a_node_becomes_an_answer(config: ConfigRecord | None, arrays: ArrayRecord | None) -> None:
    content = RecordDict()
    if config is not None:
        content[RECORD_CONFIG] = config
    if arrays is not None:
        content[RECORD_ARRAYS] = arrays
    answer = _answer(_sent(content), 1)
    assert answer.problem is None  # what comes from Flower itself: for that a hospital is asked again
    with pytest.raises(HematovisionError):
        raise _read(answer)


def test_garbage_is_refused_and_not_asked_for_again(runtime: Runtime) -> None:
    garbage = _answer(_sent(RecordDict({RECORD_CONFIG: ConfigRecord({"other": "x"})})), 1)
    run_id = new_run(runtime, rounds=1)
    fleet = MemoryFleet({1: trains(1, step=1.0), 2: lambda _ask: replace(garbage, node_id=2)})
    with pytest.raises(RunFailedError, match="Only 1 of 2"):
        conduct(runtime, run_id, fleet, flower_run_id="7", breath_seconds=0)
    assert [node_id for _, node_id, _ in fleet.asked] == [1, 2]


def _sent(content: RecordDict) -> Message:
    asked = Message(RecordDict(), dst_node_id=1, message_type=MessageType.TRAIN)
    asked.metadata.__dict__["_message_id"] = "m"
    return Message(content, reply_to=asked)


def _read(answer: Answer) -> Exception:
    try:
        read_reply(answer)
    except HematovisionError as error:
        return error
    return AssertionError("this text is no reply")
