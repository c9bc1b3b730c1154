"""Rules of federated runs: who may launch and see them, what a run is made of, what its log book says."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sqlmodel import Session

import server.audit.service as audit
import server.hospitals.service as hospitals
import server.outbox.service as outbox
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.db.types import JsonDict
from server.federation import labels, repository
from server.federation.planning import chosen_sites, planned
from server.federation.privacy import RunPrivacy
from server.federation.recipe import as_chosen
from server.federation.schemas import (
    EventView,
    LastRound,
    RoundView,
    RunPlan,
    RunSummary,
    RunView,
    SiteCensus,
    SiteRoundView,
    StrategyParameterView,
    StrategyView,
)
from server.federation.states import RunState
from server.federation.strategies import registry as strategies
from server.hospitals.schemas import NodePrincipal
from server.models.base import utc_now
from server.models.federation import CensusRecord, Run, RunEvent, SiteRound
from shared.contracts.errors import ConflictError, ForbiddenError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.training import Census, Recipe, SiteMetrics

_LAUNCHERS = frozenset({Role.COORDINATOR, Role.ADMIN})
_VIEWERS = _LAUNCHERS | {Role.AUDITOR, Role.HOSPITAL_IT}
_EVENTS_AT_ONCE = 500
_BEGINS = " starts with "
_SITE_LINES = frozenset({"site", "evaluate"})
"""Kinds of lines that begin with the hospital whose figures they tell."""
_CENTRE_LINES = frozenset({"network"})
"""Kinds of lines that name hospitals to the centre's people alone: who is waited for, who is asked again."""


def start_run(session: Session, principal: Principal, plan: RunPlan) -> str:
    """Write a run and ask for its launch; return its key.

    Raises:
        ConflictError: another run is under way.
        NothingToDoError, UsageError: as `server.federation.planning.planned`.
    """
    _require(principal, _LAUNCHERS)
    if running := repository.active(session):
        raise ConflictError(f"Run {running[0].id[:8]} is under way; wait for its end or stop it first.")
    strategy, recipe = planned(session, plan)
    learnt = labels.learnt_from(session, plan)
    run = Run(
        recipe=recipe.model_dump(mode="json"),
        strategy=strategy.name,
        strategy_parameters=strategy.model_dump(mode="json"),
        privacy=plan.privacy.model_dump(mode="json"),
        rounds=plan.rounds,
        min_sites=plan.min_sites,
        round_deadline_seconds=plan.round_deadline_seconds,
        created_by=principal.username,
        plan=plan.model_dump(mode="json"),
        feedback={hospital: one.reports for hospital, one in learnt.items()},
        imported={hospital: one.imported for hospital, one in learnt.items()},
    )
    repository.add(session, run)
    asked = f"{plan.rounds} rounds, {recipe.backbone}, {len(recipe.classes)} classes, {strategy.title}"
    if plan.privacy.kinds:
        asked = f"{asked}, {plan.privacy.text}"
    write_event(session, run.id, "run", f"Launched by {principal.display_name}: {asked}")
    if plan.sites is not None:
        write_event(session, run.id, "network", f"Asked alone: {', '.join(sorted(plan.sites))}")
    outbox.add(session, "federation.launch", {"run_id": run.id})
    audit.record(
        session,
        subject=f"run:{run.id}",
        actor=principal.actor,
        action="federation.start",
        data={
            "rounds": plan.rounds,
            "classes": [str(cls) for cls in recipe.classes],
            "strategy": str(strategy.name),
            "strategy_parameters": strategy.model_dump(mode="json"),
            "privacy": plan.privacy.model_dump(mode="json"),
            "recipe": as_chosen(recipe),
            **({} if plan.sites is None else {"hospitals": sorted(plan.sites)}),
        },
    )
    return run.id


def cells_by_class(session: Session, classes: Sequence[CellClass]) -> dict[str, dict[CellClass, int]]:
    """Return, per hospital, its training cells of these classes; a subclass counts into its class."""
    counted: dict[str, dict[CellClass, int]] = {}
    for record in repository.censuses(session):
        sums: Counter[CellClass] = Counter()
        for row in Census.model_validate(record.census).rows:
            cls = row.cls if row.cls in classes else row.cls.info.parent
            if cls is not None and cls in classes:
                sums[cls] += row.train
        counted[record.hospital_id] = {cls: sums[cls] for cls in classes if sums[cls]}
    return counted


def offered_strategies() -> list[StrategyView]:
    """Return what a launch can choose from, the default first."""
    return [
        StrategyView(
            name=kind.name,
            title=kind.title,
            sentence=kind.sentence,
            least_sites=kind().least_sites,
            parameters=[
                StrategyParameterView(
                    name=name,
                    title=str(field.title),
                    description=str(field.description),
                    default=field.default,
                    whole=field.annotation is int,
                )
                for name, field in kind.fields().items()
            ],
        )
        for kind in strategies.OFFERED.values()
    ]


def request_stop(session: Session, principal: Principal, run_id: str) -> None:
    """Ask a run to stop; what its finished rounds learnt stays in its checkpoints."""
    _require(principal, _LAUNCHERS)
    run = _get(session, run_id)
    if run.state.over:
        raise ConflictError("This run has ended already.")
    if run.stop_requested:
        return
    run.stop_requested = True
    write_event(session, run.id, "run", f"Stop asked for by {principal.display_name}")
    if run.state is RunState.PAUSED:
        fail(session, run.id, "The run was stopped.")
    else:
        outbox.add(session, "federation.stop", {"run_id": run.id})
    audit.record(session, subject=f"run:{run.id}", actor=principal.actor, action="federation.stop", data={})


def run_view(session: Session, principal: Principal, run_id: str) -> RunView:
    """Return a run whole; a hospital's own staff see only their own hospital's rows."""
    _require(principal, _VIEWERS)
    run = _get(session, run_id)
    names = _names(session, principal)
    sites: dict[int, list[SiteRoundView]] = {}
    for site in repository.site_rounds(session, run.id):
        if principal.hospital_id in (None, site.hospital_id):
            sites.setdefault(site.round, []).append(_site_view(site, names))
    rounds = [
        RoundView(**row.model_dump(exclude={"run_id"}), sites=sites.get(row.round, []))
        for row in repository.rounds(session, run.id)
    ]
    recipe = Recipe.model_validate(run.recipe)
    strategy = strategies.parse(run.strategy, run.strategy_parameters)
    return RunView(
        **_summary(session, [run])[0].model_dump(),
        started_at=run.started_at,
        strategy=run.strategy,
        strategy_title=strategy.title,
        strategy_parameters={str(field.title): getattr(strategy, name) for name, field in strategy.fields().items()},
        privacy=RunPrivacy.model_validate(run.privacy),
        epsilon=max((row.epsilon for row in rounds if row.epsilon is not None), default=None),
        min_sites=run.min_sites,
        asked=_asked(run, names, principal),
        classes=list(recipe.classes),
        local_epochs=recipe.local_epochs,
        recipe=recipe,
        flower_run_id=run.flower_run_id,
        round_views=rounds,
        events=events_since(session, run.id, 0, hospital_id=principal.hospital_id),
        per_site=_seen_by(principal, _metrics(run.per_site)),
        after=_after(run, principal),
    )


def _after(run: Run, principal: Principal) -> LastRound | None:
    if run.validated is None:
        return None
    sites = _metrics(run.validated)
    return LastRound(
        loss=weighted_mean((site.loss, site.n) for site in sites.values()),
        accuracy=weighted_mean((site.accuracy, site.n) for site in sites.values()),
        sites=_seen_by(principal, sites),
    )


def _metrics(kept: JsonDict | None) -> dict[str, SiteMetrics]:
    return {hospital: SiteMetrics.model_validate(metrics) for hospital, metrics in (kept or {}).items()}


def _seen_by(principal: Principal, sites: Mapping[str, SiteMetrics]) -> dict[str, SiteMetrics]:
    """Return each hospital's figures; a hospital's own staff see their own."""
    return {hospital: metrics for hospital, metrics in sites.items() if principal.hospital_id in (None, hospital)}


def weighted_mean(pairs: Iterable[tuple[float | None, int | None]]) -> float | None:
    """Return the mean of values, each with its weight, as far as both are known; None where none are."""
    known = [(value, weight) for value, weight in pairs if value is not None and weight]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def list_runs(session: Session, principal: Principal, limit: int = 50) -> list[RunSummary]:
    """Return the newest runs first."""
    _require(principal, _VIEWERS)
    return _summary(session, list(repository.newest(session, limit)))


def latest_run_id(session: Session, principal: Principal) -> str:
    """Return the key of the newest run."""
    _require(principal, _VIEWERS)
    runs = repository.newest(session, 1)
    if not runs:
        raise NotFoundError("There is no run yet; launch one with: hematovision-server federate start")
    return runs[0].id


def events_since(session: Session, run_id: str, after_id: int, *, hospital_id: str | None = None) -> list[EventView]:
    """Return the lines of a run's log book after a line: what a live page asks for, with the last id it has seen.

    With ``hospital_id`` the lines on other hospitals' figures are left out, and who else takes part: its own staff ask.
    """
    rows = repository.events(session, run_id, after_id, _EVENTS_AT_ONCE)
    return [
        EventView(id=row.id or 0, at=row.at, kind=row.kind, text=row.text if hospital_id is None else _nameless(row))
        for row in rows
        if hospital_id is None
        or row.kind not in _SITE_LINES | _CENTRE_LINES
        or (row.kind in _SITE_LINES and row.text.startswith((f"{hospital_id} ", f"{hospital_id}:")))
    ]


def _nameless(row: RunEvent) -> str:
    """Return a line without the hospitals that a round begins with."""
    return row.text.partition(_BEGINS)[0] + " starts" if row.kind == "round" and _BEGINS in row.text else row.text


def is_over(session: Session, run_id: str) -> bool:
    """Whether nothing more will happen in a run."""
    return _get(session, run_id).state.over


def is_active(session: Session, run_id: str) -> bool:
    """Whether something happens in a run, or will without anybody's doing."""
    return _get(session, run_id).state.active


def census(session: Session, principal: Principal) -> list[SiteCensus]:
    """Return what every hospital could train on, as its node last told."""
    _require(principal, _VIEWERS)
    nodes = _nodes_by_hospital(session, principal)
    return [
        SiteCensus(
            hospital_id=record.hospital_id,
            hospital_name=nodes[record.hospital_id][0],
            at=record.at,
            census=Census.model_validate(record.census),
            online=nodes[record.hospital_id][1],
        )
        for record in repository.censuses(session)
        if record.hospital_id in nodes and principal.hospital_id in (None, record.hospital_id)
    ]


def store_census(session: Session, node: NodePrincipal, counted: Census) -> None:
    """Keep a node's census as its hospital's latest."""
    record = CensusRecord(
        hospital_id=node.hospital_id, at=utc_now(), census=counted.model_dump(mode="json", by_alias=True)
    )
    repository.put_census(session, record)


def write_event(session: Session, run_id: str, kind: str, text: str) -> None:
    """Add a line to a run's log book."""
    repository.add(session, RunEvent(run_id=run_id, kind=kind, text=text))


def fail(session: Session, run_id: str, problem: str) -> None:
    """End a run as failed, unless it has ended already."""
    run = _get(session, run_id)
    if run.state.over:
        return
    stopped = run.stop_requested
    run.state = RunState.STOPPED if stopped else RunState.FAILED
    run.ended_at = utc_now()
    run.problem = None if stopped else problem
    write_event(session, run_id, "run", "Stopped" if stopped else f"Failed: {problem}")


def _get(session: Session, run_id: str) -> Run:
    run = repository.get(session, run_id)
    if run is None:
        raise NotFoundError("There is no such run.")
    return run


def require_launcher(principal: Principal) -> None:
    """Refuse whoever may not launch runs."""
    _require(principal, _LAUNCHERS)


def require_viewer(principal: Principal) -> None:
    """Refuse whoever may not look at runs."""
    _require(principal, _VIEWERS)


def _require(principal: Principal, roles: frozenset[Role]) -> None:
    if principal.role not in roles:
        raise ForbiddenError("Your role does not cover federated runs; ask a coordinator.")


def _names(session: Session, principal: Principal) -> dict[str, str]:
    return {hospital_id: name for hospital_id, (name, _) in _nodes_by_hospital(session, principal).items()}


def _nodes_by_hospital(session: Session, principal: Principal) -> dict[str, tuple[str, bool]]:
    return {
        hospital.id: (hospital.name, any(node.online for node in hospital.nodes))
        for hospital in hospitals.list_hospitals(session, principal)
    }


def _asked(run: Run, names: dict[str, str], principal: Principal) -> dict[str, str] | None:
    sites = chosen_sites(run.plan)
    if sites is None:
        return None
    return {
        hospital: names.get(hospital, hospital)
        for hospital in sorted(sites)
        if principal.hospital_id in (None, hospital)
    }


def _site_view(site: SiteRound, names: dict[str, str]) -> SiteRoundView:
    return SiteRoundView(
        **site.model_dump(exclude={"run_id", "round"}), hospital_name=names.get(site.hospital_id, site.hospital_id)
    )


def _summary(session: Session, runs: list[Run]) -> list[RunSummary]:
    done = repository.rounds_done(session, [run.id for run in runs])
    return [
        RunSummary(
            id=run.id,
            state=run.state,
            rounds=run.rounds,
            rounds_done=done.get(run.id, (0, None))[0],
            created_at=run.created_at,
            created_by=run.created_by,
            ended_at=run.ended_at,
            accuracy=_accuracy(run, done.get(run.id, (0, None))[1]),
            model_version=run.model_version,
            problem=run.problem,
            stop_requested=run.stop_requested,
            pause_requested=run.pause_requested,
        )
        for run in runs
    ]


def _accuracy(run: Run, last_round: float | None) -> float | None:
    """Return the candidate's accuracy over all evaluated sites' cells; before that, the last round's."""
    evaluated = weighted_mean((site.accuracy, site.n) for site in _metrics(run.per_site).values())
    return last_round if evaluated is None else evaluated
