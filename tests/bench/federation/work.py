"""Work W of the architecture: the product's processes against a plain loop, and against stock Flower, in one run.

Three hospitals, 600 images each at 96 px, one thread a hospital, every layer learns and travels, three rounds.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load, save

from client_node.datasets.labelled import LabelledCell
from client_node.datasets.parts import write_part
from client_node.datasets.splits import Split
from client_node.supernode import flower_environment
from deploy.services.object_store import start_object_store
from deploy.simulate import worker
from deploy.simulate.fleet import trainers as trainer_pool
from deploy.simulate.partition import Sharing, share_out
from server.federation import checkpoints, service, tasks
from server.federation.control import open_control
from server.federation.recipe import make_recipe
from server.federation.schemas import RunPlan, RunView
from server.federation.states import RunState
from server.models.federation import Run
from shared.contracts.enrolment import PACKED_PROTOCOL
from shared.contracts.errors import RunFailedError
from shared.contracts.training import EvaluateReply, EvaluateRequest, Recipe, TrainReply, TrainRequest
from shared.processes import Service, Supervisor
from shared.tensors import check_tensors
from tests.bench.federation.stock_flower import stock_rounds
from tests.bench.model.bench import Bench
from tests.bench.model.rows import Row, row
from tests.bench.model.say import say
from tests.bench.model.section import Measured, Section
from tests.bench.model.stages import CLASSES
from tests.e2e.flower_world import Centre, running_centre, wait_for
from tests.server.federation.world import COORDINATOR

HOSPITALS: Final = ("north", "south", "west")
IMAGES: Final = 600
ROUNDS: Final = 3
W: Final = {"frozen_stages": 0, "input_size": 96, "local_epochs": 1, "learning_rate": 0.0004}
"""Of the recipe; the rate was chosen on validation cells: at 0.001 three networks that learn whole part too far."""
_POLICY: Final = "most_epochs = 50\nleast_examples = 1\ntell_laboratory = false\n"
_ACCURATE: Final = 0.83
_WALL: Final = 1.4
_BEYOND: Final = 0.4
_SHORT: Final = {"local_epochs": 1}
"""The default recipe, as short as it gets: for what a round takes beyond training."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What the plain loop took, and how right its model is over the hospitals' test cells."""

    seconds: float
    accuracy: float
    parts: list[float]
    """Seconds of each round, then of the evaluation."""


def shares(bench: Bench) -> list[list[LabelledCell]]:
    """Return each hospital's cells: 600 to train on."""
    cells = bench.cells("pbc", "train", "val", "test")
    kept = []
    for part in share_out(cells, len(HOSPITALS), sharing=Sharing.GROUP, alpha=1.0):
        training = [cell for cell in part if cell.split is Split.TRAIN][:IMAGES]
        kept.append(training + [cell for cell in part if cell.split is not Split.TRAIN])
    return kept


def measure(bench: Bench) -> Measured:
    """Run all three beside nothing else, one after the other."""
    with tempfile.TemporaryDirectory(prefix="hematovision-bench-") as folder:
        work = Path(folder)
        with _federation(bench, work) as centre:
            say("work W through Flower: TLS, node keys, durable state")
            run, wall = _run(centre, W)
            say("the default recipe, short, for what a round takes beyond training")
            short, _ = _run(centre, _SHORT)
            plan = _plan(centre, run.id)
        say("work W as a plain loop in three processes")
        loop = _plain(bench, work, plan)
        say("stock Flower with a PyTorch app")
        stock = stock_rounds(work / "stock", wait_for=wait_for)
    return Measured(_rows(run, wall, short, loop, stock), _notes(run, short, loop, stock))


def _rows(run: RunView, wall: float, short: RunView, loop: Loop, stock: list[tuple[float, float]]) -> list[Row]:
    judged = sum(metrics.n for metrics in run.per_site.values())
    accuracy = sum(metrics.accuracy * metrics.n for metrics in run.per_site.values()) / judged
    ours = [seconds - slowest for seconds, slowest in _rounds(short)][1:]
    theirs = [seconds - slowest for seconds, slowest in stock][1:]
    return [
        row("work W, accuracy over the hospitals' test cells", accuracy, None, None, judged, goal=_ACCURATE),
        row("work W, the plain loop's accuracy", loop.accuracy, None, None, judged, goal=None),
        row("work W through Flower, seconds until the candidate is evaluated", wall, None, None, 1, goal=None),
        row("work W as a plain loop, seconds", loop.seconds, None, None, 1, goal=None),
        row("work W, wall ÷ the plain loop", wall / loop.seconds, None, None, 1, goal=_WALL, at_most=True),
        row("seconds a round beyond the slowest site's training", float(np.mean(ours)), min(ours), max(ours),
            len(ours), goal=None),
        row("the same of stock Flower", float(np.mean(theirs)), min(theirs), max(theirs), len(theirs), goal=None),
        row("seconds a round beyond training ÷ stock Flower's", float(np.mean(ours) / np.mean(theirs)), None, None,
            len(ours), goal=_BEYOND, at_most=True),
    ]  # fmt: skip


def _rounds(view: RunView) -> list[tuple[float, float]]:
    """Return, for each round, (its seconds, the slowest site's)."""
    return [(one.seconds or 0.0, max(site.seconds or 0.0 for site in one.sites)) for one in view.round_views]


def _notes(run: RunView, short: RunView, loop: Loop, stock: list[tuple[float, float]]) -> list[str]:
    def words(pairs: list[tuple[float, float]]) -> str:
        return ", ".join(f"{seconds:.1f} s ({slowest:.1f} s)" for seconds, slowest in pairs)

    plain = ", ".join(f"{seconds:.1f} s" for seconds in loop.parts)
    return [
        f"Rounds of work W (the slowest site's training): {words(_rounds(run))}.",
        f"Rounds of the plain loop, and its evaluation: {plain}.",
        f"Rounds of the short run: {words(_rounds(short))}; of stock Flower: {words(stock)}. The first is left out.",
    ]


@contextmanager
def _federation(bench: Bench, work: Path) -> Iterator[Centre]:
    """Yield a centre with real SuperLink, SuperNodes, relays and trainers, all nodes online."""
    with Supervisor() as supervisor:
        store = start_object_store(work, supervisor)
        with running_centre(work / "world", store, {}) as centre:
            for name, cells in zip(HOSPITALS, shares(bench), strict=True):
                hospital = centre.hospital(name, step=0.0, examples=0, policy=_POLICY, protocol=PACKED_PROTOCOL)
                write_part(bench.home, hospital.home, [cell.hash for cell in cells])
                trainer = [sys.executable, "-m", "client_node.trainer", "--home", str(hospital.home)]
                log = work / "logs" / f"trainer-{name}.log"
                env = flower_environment(hospital.home / "flower")
                centre.supervisor.start(Service(f"trainer {name}", trainer, env=env, log_path=log))
                centre.start_node(hospital)
            tasks.welcome(centre.runtime, {})

            def all_online() -> bool:
                with open_control(centre.flower.address, centre.flower.ca) as control:
                    return sum(node.online for node in control.nodes()) == len(HOSPITALS)

            wait_for(all_online, 180, "every node's connection")
            yield centre


def _run(centre: Centre, recipe: Mapping[str, float]) -> tuple[RunView, float]:
    """Launch a run and wait for its end; return it, and the seconds from launch to the last evaluation."""
    plan = RunPlan(rounds=ROUNDS, recipe=dict(recipe), min_sites=len(HOSPITALS), classes=list(CLASSES))
    with centre.runtime.database.session() as session:
        run_id = service.start_run(session, COORDINATOR, plan.model_copy(update={"round_deadline_seconds": 1800}))
    tasks.launch(centre.runtime, {"run_id": run_id})

    def view() -> RunView:
        with centre.runtime.database.session(read_only=True) as session:
            return service.run_view(session, COORDINATOR, run_id)

    wait_for(lambda: view().state.over, 3600, "the end of the run")
    ended = view()
    if ended.state is not RunState.COMPLETED:
        raise RunFailedError(ended.problem or "The run was stopped.")
    last = max(event.at for event in ended.events if event.kind == "evaluate")
    return ended, (last - ended.created_at).total_seconds()


@dataclass(frozen=True, slots=True)
class _Given:
    """What the plain loop starts from: the same as the run."""

    recipe: Recipe
    base_sha256: str
    start: bytes


def _plan(centre: Centre, run_id: str) -> _Given:
    with centre.runtime.database.session(read_only=True) as session:
        run = session.get(Run, run_id)
        if run is None or run.base_sha256 is None:
            raise RunFailedError("The run has no start.")
        return _Given(
            Recipe.model_validate(run.recipe), run.base_sha256, checkpoints.load(centre.runtime.store, run_id, 0)
        )


def _plain(bench: Bench, work: Path, given: _Given) -> Loop:
    """Train in three processes and average in this one; no store, database or network between them."""
    homes = []
    for name, cells in zip(HOSPITALS, shares(bench), strict=True):
        home = work / "plain" / name
        write_part(bench.home, home, [cell.hash for cell in cells])
        (home / "policy.toml").write_text(f"[training]\nleast_participants = 1\n{_POLICY}")
        (home / "keys").mkdir()
        source = work / "world" / name / "keys" / "signing.pem"
        (home / "keys" / "signing.pem").write_bytes(source.read_bytes())
        homes.append(home)
    tensors = {name: array.astype(np.float16) for name, array in load(given.start).items()}
    with trainer_pool(len(HOSPITALS)) as pool:
        for one in [pool.submit(worker.get_ready) for _ in homes]:
            one.result()  # resident, as the hospitals' are
        times = [time.monotonic()]

        def asked(request: TrainRequest | EvaluateRequest) -> list[worker.Told]:
            text, body = request.model_dump_json(by_alias=True), bytes(save(tensors))
            waiting = [pool.submit(worker.answer, str(home), text, body) for home in homes]
            return [one.result() for one in waiting]

        for number in range(1, ROUNDS + 1):
            request = TrainRequest(
                run_key="plain", round=number, rounds=ROUNDS, base_sha256=given.base_sha256, recipe=given.recipe,
                participants=len(homes),
            )  # fmt: skip
            updates = []
            for reply, _, update, _ in asked(request):
                TrainReply.model_validate_json(reply)  # a refusal ends the comparison
                check_tensors(update)
                updates.append(load(update))
            tensors = {
                name: np.mean([one[name].astype(np.float32) for one in updates], axis=0).astype(np.float16)
                for name in tensors
            }
            times.append(time.monotonic())
        evaluation = EvaluateRequest(
            run_key="plain", base_sha256=given.base_sha256, recipe=given.recipe, participants=len(homes)
        )
        found = [EvaluateReply.model_validate_json(told[0]).candidate for told in asked(evaluation)]
        times.append(time.monotonic())
    judged = sum(metrics.n for metrics in found)
    accuracy = sum(metrics.accuracy * metrics.n for metrics in found) / judged
    return Loop(times[-1] - times[0], accuracy, [after - before for before, after in itertools.pairwise(times)])


SECTION: Final = Section(
    name="work",
    title="Processes",
    measure=measure,
    version=3,
    seconds=(420, 420),
    also=lambda _bench: [
        json.dumps(W),
        IMAGES,
        ROUNDS,
        make_recipe(CLASSES, dict(W)).model_dump(mode="json"),
    ],
    method=(
        "Work W: three hospitals with 600 images of PBC each, 96 px, every layer learns and travels (packed), three "
        "rounds of one epoch, then the candidate at every hospital; one thread a hospital, on two cores. Ours: "
        "SuperLink with TLS, node keys and state on disk, SuperExec, three SuperNodes, relays and resident trainers; "
        "from launch to the last evaluation. The plain loop: the same trainers in three resident processes, averaged "
        "in a fourth. Beyond training: a round's seconds without the slowest site's, of the "
        "default recipe at its shortest, against Flower's PyTorch quickstart on an insecure SuperLink with its state "
        "in memory; the first round, in which caches fill, is left out."
    ),
)
