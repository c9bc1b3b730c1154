"""Background work of federated runs: launch, stop, registering nodes with the SuperLink, noticing dead runs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import structlog

from server.federation import checkpoints, dry_run, repository, schedule, service, steering
from server.federation.control import Control, FlowerRun, open_control, openssh_to_pem
from server.federation.publish import publish_app
from server.federation.start import start_tensors
from server.federation.states import RunState
from server.federation.strategies.tensors import wire_tensors
from server.models.base import utc_now
from server.models.hospitals import Node
from server.runtime import Runtime
from shared.contracts.errors import ConfigError, HematovisionError, RunFailedError, ServiceUnavailableError
from shared.contracts.training import Recipe

MANIFEST = Path(__file__).resolve().parents[2] / "deploy" / "flower" / "pyproject.toml"

log = structlog.get_logger(__name__)


def launch(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Prepare a queued run's start, publish the signed app and start the run; every failure ends the run visibly.

    A run that is resumed, or launched by a schedule, waits for a server that is away: nobody may be looking.
    """
    run_id = str(payload["run_id"])
    with runtime.database.session() as session:
        run = repository.get(session, run_id)
        if run is None or not run.state.active or run.flower_run_id is not None:
            return
        run.state = RunState.STARTING
        recipe, past = Recipe.model_validate(run.recipe), list(run.past_flower_runs)
        prepared = run.base_sha256 is not None
        waits = bool(past) or run.created_by == schedule.SCHEDULER.username
    try:
        if not prepared and not _prepared(runtime, run_id, recipe):
            return
        _start(runtime, run_id, past)
    except ServiceUnavailableError as error:
        if waits:
            raise  # the outbox tries again
        _fail(runtime, run_id, error.message)
    except HematovisionError as error:
        log.warning("federation.launch_failed", run_id=run_id, code=error.code)
        _fail(runtime, run_id, error.message)
    except Exception:
        _fail(runtime, run_id, "An unexpected error ended the launch; the worker's log has the details.")
        raise


def _prepared(runtime: Runtime, run_id: str, recipe: Recipe) -> bool:
    """Store what the run starts from; return whether it still wants to start."""
    start = start_tensors(runtime, recipe)
    checkpoints.save(runtime.store, run_id, 0, start.tensors)
    with runtime.database.session() as session:
        run = repository.get(session, run_id)
        if run is None or not run.state.active:
            return False
        run.base_sha256, run.parent = start.base_sha256, start.parent
        origin = f"model {start.parent}" if start.parent else f"{recipe.backbone}, pretrained on ImageNet"
        service.write_event(session, run_id, "run", f"Starts from {origin}")
    return True


def ask_hospitals(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Prepare a dry run as its launch would be prepared, and start it; every failure ends it visibly."""
    dry_run_id = str(payload["dry_run_id"])
    with runtime.database.session() as session:
        row = repository.dry_run(session, dry_run_id)
        if row is None or row.ended_at is not None or row.flower_run_id is not None:
            return
        recipe = Recipe.model_validate(row.recipe)
    try:
        start = start_tensors(runtime, recipe)
        with runtime.database.session() as session:
            row = repository.dry_run(session, dry_run_id)
            if row is None or row.ended_at is not None:
                return
            row.base_sha256, row.tensor_bytes = start.base_sha256, len(wire_tensors(start.tensors))
        _start_app(runtime, {"dry-run-key": dry_run_id})
    except HematovisionError as error:
        log.warning("federation.dry_run_failed", dry_run_id=dry_run_id, code=error.code)
        with runtime.database.session() as session:
            dry_run.fail(session, dry_run_id, error.message)


def _start_app(runtime: Runtime, config: dict[str, str], *, past: Sequence[str] = ()) -> int:
    app = publish_app(
        str(superlink_database(runtime)), MANIFEST, runtime.vault.release_key().sign_raw, signed_at=utc_now()
    )
    with _control(runtime) as control:
        _welcome(runtime, control)
        for flower_run_id in past[-1:]:
            # Its process may live on, though nobody listens to it any more.
            with suppress(RunFailedError):
                control.stop(int(flower_run_id))
        return control.start(app_id=app.app_id, fab_hash=app.fab_hash, config=config)


def _start(runtime: Runtime, run_id: str, past: Sequence[str]) -> None:
    flower_run_id = _start_app(runtime, {"run-key": run_id}, past=past)
    with runtime.database.session() as session:
        run = repository.get(session, run_id)
        # A worker that died right here is followed by another, which starts a second one: whichever began first stays.
        if run is not None and run.flower_run_id is None and str(flower_run_id) not in run.past_flower_runs:
            run.flower_run_id = str(flower_run_id)
    log.info("federation.launched", run_id=run_id, flower_run_id=flower_run_id)


def _fail(runtime: Runtime, run_id: str, problem: str) -> None:
    with runtime.database.session() as session:
        service.fail(session, run_id, problem)


def stop(runtime: Runtime, payload: dict[str, Any]) -> None:
    """End a run that never got as far as its ServerApp; a living ServerApp sees the stop flag by itself.

    The task may come late: a run that was resumed meanwhile is not to stop any more.
    """
    run_id = str(payload["run_id"])
    with runtime.database.session() as session:
        run = repository.get(session, run_id)
        if run is not None and run.stop_requested and run.flower_run_id is None:
            service.fail(session, run_id, "The run was stopped.")


def welcome(runtime: Runtime, payload: dict[str, Any]) -> None:  # noqa: ARG001 - the signature of every task
    """Let the SuperLink know newly approved training nodes, and forget those that are not approved any more."""
    if not runtime.settings.superlink_control:
        return
    with runtime.database.session(read_only=True) as session:
        unknown = [node for node in repository.training_nodes(session) if node.flower_node_id is None]
        if not unknown and not repository.unwelcome_nodes(session):
            return
    with _control(runtime) as control:
        _welcome(runtime, control)


def watch(runtime: Runtime, payload: dict[str, Any]) -> None:  # noqa: ARG001 - the signature of every task
    """Resume runs whose Flower run has ended without saying so itself, whatever Flower thinks of it."""
    with runtime.database.session(read_only=True) as session:
        carried = {run.id: int(run.flower_run_id) for run in repository.active(session) if run.flower_run_id}
        asked = {row.id: int(row.flower_run_id) for row in repository.open_dry_runs(session) if row.flower_run_id}
    if not carried and not asked:
        return
    with _control(runtime) as control:
        for run_id, flower_run_id in carried.items():
            if (status := _status(control, flower_run_id)) is None or not status.finished:
                continue
            log.warning("federation.run_died", run_id=run_id, sub_status=status.sub_status)
            with runtime.database.session() as session:
                problem = "The run's process ended before it had a result; see the SuperExec log."
                steering.recover(session, run_id, str(flower_run_id), problem)
        for dry_run_id, flower_run_id in asked.items():
            if (status := _status(control, flower_run_id)) is not None and status.finished:
                with runtime.database.session() as session:
                    dry_run.fail(session, dry_run_id, "The question's process ended; see the SuperExec log.")


def _status(control: Control, flower_run_id: int) -> FlowerRun | None:
    """Return how a run stands; None where the SuperLink does not tell: the others are looked after all the same."""
    try:
        return control.run(flower_run_id)
    except RunFailedError:
        log.warning("federation.run_not_told", flower_run_id=flower_run_id)
        return None


def presence(runtime: Runtime, payload: dict[str, Any]) -> None:  # noqa: ARG001 - the signature of every task
    """Keep which nodes the SuperLink hears: a node that it does not is told so with its next heartbeat."""
    if not runtime.settings.superlink_control:
        return
    with runtime.database.session(read_only=True) as session:
        if not any(node.flower_node_id for node in repository.training_nodes(session)):
            return
    with _control(runtime) as control:
        online = {str(node.node_id) for node in control.nodes() if node.online}
    with runtime.database.session() as session:
        for node_id in repository.keep_presence(session, online, utc_now()):
            log.warning("federation.node_lost", node_id=node_id)


def launch_due(runtime: Runtime, payload: dict[str, Any]) -> None:  # noqa: ARG001 - the signature of every task
    """Launch the runs whose time has come."""
    with runtime.database.session(read_only=True) as session:
        if not repository.schedules(session):
            return
    with runtime.database.session() as session:
        for run_id in schedule.launch_due(session, utc_now()):
            log.info("federation.scheduled", run_id=run_id)


def _welcome(runtime: Runtime, control: Control) -> None:
    with runtime.database.session(read_only=True) as session:
        new = [node for node in repository.training_nodes(session) if node.flower_node_id is None]
        unwelcome = list(repository.unwelcome_nodes(session))
    if not new and not unwelcome:
        return
    known = {node.public_key.strip(): node.node_id for node in control.nodes()}
    for node in new:
        if (flower_id := _register(control, known, node)) is not None:
            _set_flower_id(runtime, node.id, str(flower_id))
            log.info("federation.node_registered", node_id=node.id, hospital_id=node.hospital_id)
    for node in unwelcome:
        if int(node.flower_node_id or 0) in known.values():
            control.unregister(int(node.flower_node_id or 0))
        _set_flower_id(runtime, node.id, None)
        log.info("federation.node_unregistered", node_id=node.id)


def _register(control: Control, known: dict[bytes, int], node: Node) -> int | None:
    try:
        pem = openssh_to_pem(node.flower_key)
    except ValueError:
        log.warning("federation.bad_node_key", node_id=node.id)
        return None
    if (flower_id := known.get(pem.strip())) is not None:
        return flower_id
    try:
        return control.register(pem, node.hospital_id)
    except RunFailedError:
        # One node's key must not stop the others: the SuperLink refuses a key that was unregistered once.
        log.warning("federation.node_not_registered", node_id=node.id, hospital_id=node.hospital_id)
        return None


def _set_flower_id(runtime: Runtime, node_id: str, flower_id: str | None) -> None:
    with runtime.database.session() as session:
        repository.set_flower_id(session, node_id, flower_id)


def superlink_database(runtime: Runtime) -> Path:
    """Return the SuperLink's ``--database`` file."""
    return runtime.settings.home / "flower" / "superlink.sqlite"


def _control(runtime: Runtime) -> AbstractContextManager[Control]:
    if not runtime.settings.superlink_control:
        raise ConfigError("No SuperLink is set up: HEMATOVISION_SERVER_SUPERLINK_CONTROL is empty.")
    return open_control(runtime.settings.superlink_control, runtime.settings.keys / "ca" / "ca.crt")


TASKS: dict[str, Callable[[Runtime, dict[str, Any]], None]] = {
    "federation.launch": launch,
    dry_run.KIND: ask_hospitals,
    "federation.stop": stop,
    "federation.welcome": welcome,
    "federation.watch": watch,
    "federation.schedule": launch_due,
    "federation.presence": presence,
}
PERIODIC = {
    "federation.welcome": 3.0,
    "federation.watch": 15.0,
    "federation.schedule": 20.0,
    "federation.presence": 15.0,
}
