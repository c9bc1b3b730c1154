"""Asks every hospital before a launch whether it would take part; nothing is trained and no tensors are sent.

The question goes the way of a round (SuperLink, SuperNode, relay, trainer), so that it also shows whether that way is
open. What a hospital answers is its own policy's word on the very plan.
"""

from datetime import timedelta
from typing import Final

from sqlmodel import Session

import server.audit.service as audit
import server.hospitals.service as hospitals
import server.outbox.service as outbox
from server.accounts.schemas import Principal
from server.federation import repository, service
from server.federation.forecast import DryRunView, Pace, SiteAnswer, SiteForecast, held, pace
from server.federation.planning import asks, planned, trains
from server.federation.schemas import RunPlan
from server.hospitals.schemas import HospitalView
from server.models.base import utc_now
from server.models.federation import DryRun
from shared.contracts.enrolment import EnrolmentState
from shared.contracts.errors import ConflictError, NotFoundError
from shared.contracts.training import Census, Recipe

KIND: Final = "federation.dry_run"
_GIVEN_UP: Final = timedelta(minutes=5)
"""A question that is still open after this time is one whose process died."""
_PAST: Final = 200


def start(session: Session, principal: Principal, plan: RunPlan) -> str:
    """Write the question and have it asked; return its key.

    Raises:
        ConflictError: a run is under way, or the last question is still open.
        NothingToDoError, UsageError: the plan itself could not be launched.
    """
    service.require_launcher(principal)
    if repository.active(session):
        raise ConflictError("A run is under way; ask the hospitals once it has ended.")
    if any(utc_now() - row.created_at < _GIVEN_UP for row in repository.open_dry_runs(session)):
        raise ConflictError("The hospitals are being asked already; wait for their answers.")
    _, recipe = planned(session, plan)
    row = DryRun(
        plan=plan.model_dump(mode="json"), recipe=recipe.model_dump(mode="json"), created_by=principal.username
    )
    repository.add(session, row)
    outbox.add(session, KIND, {"dry_run_id": row.id})
    audit.record(
        session,
        subject=f"dry-run:{row.id}",
        actor=principal.actor,
        action=KIND,
        data={
            "rounds": plan.rounds,
            "classes": [str(cls) for cls in recipe.classes],
            **({} if plan.sites is None else {"hospitals": sorted(plan.sites)}),
        },
    )
    return row.id


def view(session: Session, principal: Principal, dry_run_id: str) -> DryRunView:
    """Return a question with what each hospital answered so far; a hospital's own staff see their own line only."""
    service.require_viewer(principal)
    row = repository.dry_run(session, dry_run_id)
    if row is None:
        raise NotFoundError("There is no such dry run.")
    plan, recipe = RunPlan.model_validate(row.plan), Recipe.model_validate(row.recipe)
    speed = pace(repository.past_site_rounds(session, _PAST), recipe, plan.privacy.measure)
    census = _census(session, recipe)
    sites = [
        _forecast(row, recipe, hospital, speed, census)
        for hospital in hospitals.list_hospitals(session, principal)
        if trains(hospital) and asks(plan, hospital.id) and principal.hospital_id in (None, hospital.id)
    ]
    whole = speed.whole_round(sites) if principal.hospital_id is None else None
    died = row.ended_at is None and utc_now() - row.created_at >= _GIVEN_UP
    return DryRunView(
        id=row.id,
        created_at=row.created_at,
        created_by=row.created_by,
        plan=plan.as_told(principal.hospital_id),
        ended=row.ended_at is not None or died,
        problem=row.problem or ("The question was never asked to its end; see the worker's log." if died else None),
        sites=sites,
        round_seconds=whole,
        total_seconds=whole * plan.rounds if whole is not None else None,
    )


def fail(session: Session, dry_run_id: str, problem: str) -> None:
    """End a question badly, unless it has ended already."""
    row = repository.dry_run(session, dry_run_id)
    if row is not None and row.ended_at is None:
        row.ended_at, row.problem = utc_now(), problem


def _forecast(row: DryRun, recipe: Recipe, hospital: HospitalView, speed: Pace, census: dict[str, int]) -> SiteForecast:
    said = row.answers.get(hospital.id)
    answer = SiteAnswer.model_validate(said) if said is not None else None
    nodes = [node for node in hospital.nodes if node.state is EnrolmentState.APPROVED]
    seen = [node.last_seen_at for node in nodes if node.last_seen_at is not None]
    silent = "Its node has not answered." if row.ended_at is not None else ""
    return SiteForecast(
        hospital_id=hospital.id,
        hospital_name=hospital.name,
        online=any(node.online for node in nodes),
        last_seen_at=max(seen, default=None),
        takes_part=answer.takes_part if answer is not None else None,
        reason=answer.reason if answer is not None else silent,
        examples=answer.examples if answer is not None else None,
        round_seconds=speed.round_of(hospital.id, held(answer, census, hospital.id), recipe.local_epochs),
    )


def _census(session: Session, recipe: Recipe) -> dict[str, int]:
    """Return hospital id → training cells of the recipe's classes (a subclass counts into its class)."""
    wanted = set(recipe.classes)
    return {
        record.hospital_id: sum(
            line.train
            for line in Census.model_validate(record.census).rows
            if line.cls in wanted or line.cls.info.parent in wanted
        )
        for record in repository.censuses(session)
    }
