"""Steering of runs: pause after the round, resume from the last checkpoint, clone; and resuming what died by itself."""

from datetime import timedelta
from typing import Final

from sqlmodel import Session

import server.audit.service as audit
import server.outbox.service as outbox
from server.accounts.schemas import Principal
from server.federation import compatibility, repository, service
from server.federation.planning import chosen_sites, joined
from server.federation.privacy import RunPrivacy
from server.federation.recipe import as_chosen
from server.federation.schemas import RunPlan
from server.federation.states import RunState
from server.federation.strategies import registry as strategies
from server.models.federation import Run
from shared.contracts.errors import ConflictError, NotFoundError
from shared.contracts.training import Recipe

MOST_RESUMES: Final = 3
"""So often a run is resumed by itself without a round ending in between; then a person must look."""
_FIRST_WAIT: Final = timedelta(seconds=5)
"""Before the first, three times as long before each further one: whatever died may need a moment to be back."""


def request_pause(session: Session, principal: Principal, run_id: str) -> None:
    """Ask a run to pause once what is under way has ended.

    Raises:
        ConflictError: it has ended, is paused already, will stop, or has played its last round.
    """
    service.require_launcher(principal)
    run = _get(session, run_id)
    if not run.state.active:
        raise ConflictError(f"This run is {run.state.value}: there is nothing to pause.")
    if run.stop_requested:
        raise ConflictError("This run is stopping; it can be resumed once it has stopped.")
    if run.state is RunState.EVALUATING:
        raise ConflictError("This run is evaluating its candidate and is over in a moment; stop it if it must end now.")
    if run.pause_requested:
        return
    run.pause_requested = True
    service.write_event(session, run.id, "run", f"Pause after the round asked for by {principal.display_name}")
    _audit(session, principal, run, "federation.pause")


def resume(session: Session, principal: Principal, run_id: str) -> None:
    """Let a paused, stopped or failed run go on after its last whole round.

    Raises:
        ConflictError: it is not over, it was completed, or another run is under way.
        UsageError: its strategy needs more hospitals than are left.
    """
    service.require_launcher(principal)
    run = _get(session, run_id)
    if not run.state.resumable:
        raise ConflictError(f"This run is {run.state.value}; only a paused, stopped or failed run can be resumed.")
    if running := repository.active(session):
        raise ConflictError(f"Run {running[0].id[:8]} is under way; wait for its end or stop it first.")
    strategy = strategies.parse(run.strategy, run.strategy_parameters)
    sites = chosen_sites(run.plan)
    asked = joined(session) if sites is None else joined(session) & sites
    privacy = RunPrivacy.model_validate(run.privacy).kinds
    compatibility.check(
        strategy, min_sites=run.min_sites, hospitals=len(asked), privacy=privacy, chosen=sites is not None
    )
    before = run.state
    run.stop_requested = run.pause_requested = False
    run.problem, run.ended_at, run.resumes = None, None, 0
    _queue(session, run, timedelta())
    service.write_event(session, run.id, "run", f"Resumed by {principal.display_name}")
    _audit(session, principal, run, "federation.resume", was=before.value)


def plan_of(session: Session, principal: Principal, run_id: str) -> RunPlan:
    """Return the plan by which a run could be launched once more, on the same classes."""
    service.require_launcher(principal)
    run = _get(session, run_id)
    recipe = Recipe.model_validate(run.recipe)
    if run.plan:
        plan = RunPlan.model_validate(run.plan)
    else:
        plan = RunPlan(
            rounds=run.rounds,
            recipe=as_chosen(recipe),
            min_sites=run.min_sites,
            round_deadline_seconds=run.round_deadline_seconds,
            strategy=strategies.StrategyName(run.strategy),
            strategy_parameters=dict(run.strategy_parameters),
        )
    return plan.model_copy(update={"classes": list(recipe.classes)})


def clone(session: Session, principal: Principal, run_id: str) -> str:
    """Launch a run by the plan of another; return the new run's key.

    Raises:
        ConflictError, NothingToDoError, UsageError: as `server.federation.service.start_run`.
    """
    plan = plan_of(session, principal, run_id)
    key = service.start_run(session, principal, plan)
    service.write_event(session, key, "run", f"By the plan of run {run_id[:8]}")
    return key


def recover(session: Session, run_id: str, flower_run_id: str, problem: str) -> None:
    """Deal with a run whose process ended without a result: what was asked for, another try, or failure.

    ``flower_run_id`` is Flower's run that ended; nothing happens where another one carries the run by now. Safe to
    repeat.
    """
    run = _get(session, run_id)
    if not run.state.active or run.flower_run_id != flower_run_id:
        return
    if run.stop_requested:
        service.fail(session, run.id, problem)
    elif run.pause_requested:
        pause(session, run, f"Paused: {problem}")
    elif run.resumes >= MOST_RESUMES:
        service.fail(
            session, run.id, f"{problem} It was resumed {MOST_RESUMES} times without a whole round; look into the logs."
        )
    else:
        wait = _FIRST_WAIT * 3**run.resumes
        run.resumes += 1
        _queue(session, run, wait)
        told = f"{problem} Resumed by itself ({run.resumes} of {MOST_RESUMES}) in {wait.seconds} s"
        service.write_event(session, run.id, "run", told)
        audit.record(
            session,
            subject=f"run:{run.id}",
            actor="system:federation",
            action="federation.recover",
            data={"try": run.resumes, "reason": problem},
        )


def pause(session: Session, run: Run, text: str) -> None:
    """Let a run rest until somebody resumes it."""
    run.state, run.pause_requested = RunState.PAUSED, False
    service.write_event(session, run.id, "run", text)


def _queue(session: Session, run: Run, wait: timedelta) -> None:
    """Have the run launched anew; no Flower run that carried it before may go on."""
    if run.flower_run_id is not None:
        run.past_flower_runs = [*run.past_flower_runs, run.flower_run_id]
        run.flower_run_id = None
    run.state = RunState.QUEUED
    outbox.add(session, "federation.launch", {"run_id": run.id}, wait=wait)


def _audit(session: Session, principal: Principal, run: Run, action: str, **data: str) -> None:
    audit.record(session, subject=f"run:{run.id}", actor=principal.actor, action=action, data=dict(data))


def _get(session: Session, run_id: str) -> Run:
    run = repository.get(session, run_id)
    if run is None:
        raise NotFoundError("There is no such run.")
    return run
