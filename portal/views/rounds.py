"""Federated runs: what could be learnt from, launch, watch, stop."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Header, Request
from sse_starlette import EventSourceResponse
from starlette.responses import RedirectResponse, Response

from portal.access import SignedIn
from portal.live import follow
from portal.rendering import page
from portal.sessions import SESSION_COOKIE
from portal.words import joined
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.federation import drift, labels, planning, schedule, steering
from server.federation import service as federation
from server.federation.privacy import COSTS, NOISED, SENTENCES, TITLES, Measure, RunPrivacy, choose
from server.federation.recipe import Value
from server.federation.schemas import RunPlan, RunView, SiteCensus
from server.federation.strategies.registry import StrategyName
from server.hospitals import service as hospitals
from server.hospitals.schemas import HospitalView
from server.registry import service as registry
from server.registry.schemas import ModelView
from shared.contracts.errors import NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import PrivacyUnit
from shared.contracts.training import Augmentation, Balance
from shared.vision import backbones

router = APIRouter(route_class=CommittingRoute)
_RECIPE: Final = "recipe."
_IN_FORM: Final = frozenset(
    ("backbone", "frozen_stages", "input_size", "augmentation", "balance", "ema", "local_epochs", "local_normalisation")
)
"""Fields of the recipe that the launch form shows."""
PRIVACY = [(measure, TITLES[measure], SENTENCES[measure], COSTS.get(measure, "")) for measure in Measure]
"""Each measure with what it protects against, and the accuracy it costs."""


@dataclass(frozen=True)
class Column:
    """One source of one hospital in the census table."""

    site: SiteCensus
    source: str
    span: int
    """Of the hospital's head cell; 0 where it has been drawn."""
    cells: dict[CellClass, tuple[int, int, int]] = field(default_factory=dict)
    """Class → cells to train, validate and test on."""

    @property
    def totals(self) -> tuple[int, int, int]:
        """Cells of all classes, by split."""
        sums = [sum(parts) for parts in zip(*self.cells.values(), strict=True)] or [0, 0, 0]
        return sums[0], sums[1], sums[2]


@router.get("/rounds", name="rounds")
def rounds(request: Request, session: SessionDep, who: SignedIn, clone: str = "") -> Response:
    """All runs, and the census before the next; ``clone``: the run whose plan fills the form."""
    census = federation.census(session, who)
    columns = census_columns(census)
    classes = sorted({cls for column in columns for cls in column.cells}, key=lambda cls: cls.order)
    trained: dict[CellClass, int] = defaultdict(int)
    for column in columns:
        for cls, (train, _, _) in column.cells.items():
            trained[cls] += train
    runs = federation.list_runs(session, who)
    plan = steering.plan_of(session, who, clone) if clone else RunPlan()
    counted = {site.hospital_id for site in census}
    known = hospitals.list_hospitals(session, who)
    return page(
        request,
        "rounds/list.html",
        runs=runs,
        under_way=next((run for run in runs if run.state.active), None),
        census=census,
        drift=drift.drift(session, who, census),
        drift_weeks=drift.DAYS // 7,
        columns=columns,
        classes=classes,
        trained=trained,
        least=planning.MIN_CLASS_CELLS,
        trainable=planning.trainable_classes(session),
        missing=[hospital.name for hospital in known if hospital.id not in counted],
        askable=_askable(known, plan),
        plan=plan,
        further=_further(plan),
        cloned=clone,
        schedules=schedule.view(session, who),
        weekdays=schedule.WEEKDAYS,
        labels=labels.fresh(session),
        strategies=federation.offered_strategies(),
        start=planning.usual_recipe(session),
        backbones=backbones.names(),
        augmentations=list(Augmentation),
        balances=list(Balance),
        privacy=PRIVACY,
        noised=NOISED,
        units=list(PrivacyUnit),
    )


def _askable(known: list[HospitalView], plan: RunPlan) -> dict[str, str]:
    """Return hospital id → name of those that can be asked; one that a plan asks and that cannot be any more says so.

    Left out of the form it would be dropped in silence, and with the last one chosen all others asked.
    """
    names = {hospital.id: hospital.name for hospital in known}
    there = {hospital.id: hospital.name for hospital in known if planning.trains(hospital)}
    gone = {site: f"{names.get(site, site)} (no approved node)" for site in plan.sites or [] if site not in there}
    return {**there, **gone}


def _further(plan: RunPlan) -> dict[str, Value]:
    """Return what of a plan's recipe the launch form does not show; it travels in hidden fields."""
    return {name: value for name, value in plan.recipe.items() if name not in _IN_FORM and value is not None}


async def strategy_parameters(request: Request) -> dict[str, str]:
    """Return what was filled in for the chosen strategy; its fields are named ``fedadam.tau``."""
    form = await request.form()
    begin = f"{form.get('strategy', '')}."
    return {
        name.removeprefix(begin): value.strip()
        for name, value in form.items()
        if name.startswith(begin) and isinstance(value, str) and value.strip()
    }


async def further_recipe(request: Request) -> dict[str, Value]:
    """Return what of the recipe stands in hidden fields named ``recipe.seed``: the plan came from elsewhere."""
    form = await request.form()
    return {
        name.removeprefix(_RECIPE): value
        for name, value in form.items()
        if name.startswith(_RECIPE) and isinstance(value, str) and value
    }


async def privacy_chosen(request: Request) -> RunPrivacy:
    """Return the chosen privacy; the fields of the chosen measure are named ``dp-sgd.epsilon``."""
    form = await request.form()
    measure = str(form.get("privacy", Measure.NONE.value))
    given = {name: form.get(f"{measure}.{name}") for name in ("epsilon", "delta", "clip", "unit")}
    return choose(measure, **{name: value.strip() for name, value in given.items() if isinstance(value, str)})


def planned(
    parameters: Annotated[dict[str, str], Depends(strategy_parameters)],
    further: Annotated[dict[str, Value], Depends(further_recipe)],
    privacy: Annotated[RunPrivacy, Depends(privacy_chosen)],
    rounds: Annotated[int, Form(ge=1, le=100)] = 3,
    min_sites: Annotated[int, Form(ge=1)] = 2,
    local_epochs: Annotated[int | None, Form(ge=1, le=50)] = None,
    sites: Annotated[list[str] | None, Form()] = None,
    deadline_minutes: Annotated[float, Form(ge=0.5, le=1440)] = 10,
    classes: Annotated[list[CellClass] | None, Form()] = None,
    backbone: Annotated[str, Form()] = "",
    frozen_stages: Annotated[str, Form()] = "",
    input_size: Annotated[str, Form()] = "",
    augmentation: Annotated[str, Form()] = "",
    balance: Annotated[str, Form()] = "",
    ema: Annotated[str, Form()] = "",
    local_normalisation: Annotated[str, Form()] = "",
    strategy: Annotated[StrategyName, Form()] = StrategyName.FEDAVG,
) -> RunPlan:
    """Return what the form plans; a field of the recipe that is left empty is as a launch starts from."""
    if privacy.measure is Measure.DP_SGD and balance == Balance.SAMPLER:
        balance = ""  # what the form has from the start is no choice against what this measure needs
    chosen = {
        "backbone": backbone, "frozen_stages": frozen_stages, "input_size": input_size, "augmentation": augmentation,
        "balance": balance, "ema": ema, "local_normalisation": local_normalisation,
    }  # fmt: skip
    return RunPlan(
        rounds=rounds,
        min_sites=min_sites,
        local_epochs=local_epochs,
        recipe={**further, **{name: value.strip() for name, value in chosen.items() if value.strip()}},
        sites=sites or None,
        round_deadline_seconds=round(deadline_minutes * 60),
        classes=classes or None,
        strategy=strategy,
        strategy_parameters=dict(parameters),
        privacy=privacy,
    )


Planned = Annotated[RunPlan, Depends(planned)]


@router.post("/rounds", name="round_start")
def start(session: SessionDep, who: SignedIn, plan: Planned) -> Response:
    """Launch a run."""
    run_id = federation.start_run(session, who, plan)
    return RedirectResponse(f"/rounds/{run_id}", status_code=303)


@router.get("/rounds/{run_id}.json", name="round_json")
def round_json(session: SessionDep, who: SignedIn, run_id: str) -> RunView:
    """A run as data."""
    return federation.run_view(session, who, run_id)


@router.get("/rounds/{run_id}", name="round")
def round_page(request: Request, session: SessionDep, who: SignedIn, run_id: str) -> Response:
    """A run; its script fetches the page again when the live stream tells of a change, and takes the parts over."""
    run = federation.run_view(session, who, run_id)
    model: ModelView | None = None
    if run.model_version:
        try:
            model = registry.model_view(session, who, run.model_version)
        except NotFoundError:
            model = None
    names = {site.hospital_id: site.hospital_name for view in run.round_views for site in view.sites}
    sites = [{site.hospital_id: site for site in view.sites} for view in run.round_views]
    data = run.model_dump(mode="json", exclude={"events"})
    asked = _asked_words(run, who.hospital_id)
    return page(request, "rounds/run.html", run=run, data=data, model=model, names=names, sites=sites, asked=asked)


def _asked_words(run: RunView, own: str | None) -> str:
    """Return who was asked; a hospital's own staff learn of no other."""
    if run.asked is None:
        return "every hospital with an approved node"
    if own is not None:
        return f"chosen hospitals, yours {'' if own in run.asked else 'not '}among them"
    return joined(run.asked.values())


@router.get("/rounds/{run_id}/events", name="round_events")
def events(
    request: Request,
    session: SessionDep,
    runtime: RuntimeDep,
    who: SignedIn,
    run_id: str,
    last_event_id: Annotated[str | None, Header()] = None,
    after: int = 0,
) -> EventSourceResponse:
    """The log book and the figures, live; a lost connection goes on where it broke off."""
    federation.run_view(session, who, run_id)
    start_after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else after
    token = request.cookies.get(SESSION_COOKIE, "")
    return EventSourceResponse(follow(runtime, token=token, run_id=run_id, after=start_after), ping=15)


@router.post("/rounds/{run_id}/stop", name="round_stop")
def stop(session: SessionDep, who: SignedIn, run_id: str) -> Response:
    """Ask a run to stop."""
    federation.request_stop(session, who, run_id)
    return RedirectResponse(f"/rounds/{run_id}", status_code=303)


@router.post("/rounds/{run_id}/pause", name="round_pause")
def pause(session: SessionDep, who: SignedIn, run_id: str) -> Response:
    """Ask a run to pause after the round."""
    steering.request_pause(session, who, run_id)
    return RedirectResponse(f"/rounds/{run_id}", status_code=303)


@router.post("/rounds/{run_id}/resume", name="round_resume")
def resume(session: SessionDep, who: SignedIn, run_id: str) -> Response:
    """Let a paused, stopped or failed run go on."""
    steering.resume(session, who, run_id)
    return RedirectResponse(f"/rounds/{run_id}", status_code=303)


def census_columns(census: list[SiteCensus]) -> list[Column]:
    """Return the census as columns: hospital by hospital, source by source."""
    columns: list[Column] = []
    for site in census:
        sources = sorted({row.source for row in site.census.rows})
        for number, source in enumerate(sources):
            column = Column(site=site, source=source, span=len(sources) if number == 0 else 0)
            for row in site.census.rows:
                if row.source == source:
                    column.cells[row.cls] = (row.train, row.val, row.test)
            columns.append(column)
    return columns
