"""Carries a dry run out in a ServerApp: one question to every connected node, one answer from each."""

import time
from dataclasses import dataclass
from typing import Final

import structlog

from server.federation import repository
from server.federation.answers import read_reply
from server.federation.book import RunBook
from server.federation.dry_run import fail
from server.federation.fleet import Answer, Ask, Fleet
from server.federation.forecast import SiteAnswer
from server.federation.privacy import Measure
from server.federation.schemas import RunPlan
from server.federation.seals import SealCheck
from server.federation.wire import older_nodes
from server.models.base import utc_now
from server.models.federation import DryRun
from server.runtime import Runtime
from shared.contracts.errors import ConflictError, DataInvalidError, HematovisionError, RunFailedError
from shared.contracts.training import DryRunReply, DryRunRequest, Recipe
from shared.packing import usual_bytes

_ANSWER_SECONDS: Final = 45.0
_GATHER_SECONDS: Final = 15.0
"""So long nodes have to connect; who is not there then is named as absent."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Question:
    plan: RunPlan
    recipe: Recipe
    base_sha256: str
    tensor_bytes: int


def rehearse(
    runtime: Runtime, dry_run_id: str, fleet: Fleet, *, flower_run_id: str, gather_seconds: float = _GATHER_SECONDS
) -> None:
    """Ask, and write down each answer as it comes; however it ends, the question is marked as ended."""
    question = _begin(runtime, dry_run_id, flower_run_id)
    try:
        _ask(runtime, dry_run_id, question, fleet, gather_seconds)
    except HematovisionError as error:
        _end(runtime, dry_run_id, error.message)
        raise
    except Exception:
        _end(runtime, dry_run_id, "An unexpected error ended the question; the ServerApp's log has the details.")
        raise
    _end(runtime, dry_run_id, None)


def _ask(runtime: Runtime, dry_run_id: str, question: _Question, fleet: Fleet, gather_seconds: float) -> None:
    book = RunBook(runtime.database, dry_run_id)
    sites = _gathered(book, fleet, question.plan, gather_seconds)
    if not sites:
        raise RunFailedError("No hospital's node is connected; see the nodes page.")
    masked = question.plan.privacy.measure is Measure.SECURE_AGGREGATION
    packed = not masked and not older_nodes(book.protocols(), sites)
    request = DryRunRequest(
        rounds=question.plan.rounds,
        base_sha256=question.base_sha256,
        recipe=question.recipe,
        participants=len(sites),
        tensor_bytes=usual_bytes(question.tensor_bytes) if packed else question.tensor_bytes,
        privacy=question.plan.privacy.asked,
        masked=masked,
    )
    ask = Ask(request, b"").fresh()
    sealed, waiting = SealCheck.of(book.signing_keys(), ask), set(sites)
    for answer in fleet.ask(dict.fromkeys(sites, ask), group="dry-run", seconds=_ANSWER_SECONDS, stopped=lambda: False):
        if answer.node_id in waiting:
            waiting.discard(answer.node_id)
            _note(runtime, dry_run_id, sites[answer.node_id], _said(sealed(answer)))


def _gathered(book: RunBook, fleet: Fleet, plan: RunPlan, seconds: float) -> dict[int, str]:
    """Return node id → hospital of the asked ones' nodes that are connected; all of them get a moment to be."""
    end = time.monotonic() + seconds
    while True:
        welcome, online = book.welcome(plan.sites), fleet.online()
        sites = {node: hospital for node, hospital in welcome.items() if node in online}
        if len(sites) == len(welcome) or time.monotonic() > end:
            return {node: hospital for hospital, node in {name: node for node, name in sites.items()}.items()}
        time.sleep(1.0)


def _said(answer: Answer) -> SiteAnswer:
    try:
        reply = read_reply(answer)
        if not isinstance(reply, DryRunReply):
            raise DataInvalidError("The node's answer does not fit the question.")
    except HematovisionError as error:
        return SiteAnswer(takes_part=False, reason=error.message)
    return SiteAnswer(takes_part=reply.takes_part, reason=reply.reason, examples=reply.examples)


def _begin(runtime: Runtime, dry_run_id: str, flower_run_id: str) -> _Question:
    with runtime.database.session() as session:
        row = repository.dry_run(session, dry_run_id)
        if row is None or row.ended_at is not None or row.flower_run_id not in (None, flower_run_id):
            raise ConflictError("This question is carried by another Flower run, or over.")
        if row.base_sha256 is None:
            raise ConflictError("This question was never prepared; ask again.")
        row.flower_run_id = flower_run_id
        return _Question(
            RunPlan.model_validate(row.plan), Recipe.model_validate(row.recipe), row.base_sha256, row.tensor_bytes
        )


def _note(runtime: Runtime, dry_run_id: str, hospital_id: str, answer: SiteAnswer) -> None:
    with runtime.database.session() as session:
        row = _row(repository.dry_run(session, dry_run_id))
        row.answers = {**row.answers, hospital_id: answer.model_dump(mode="json")}
    log.info("federation.dry_run_answer", dry_run_id=dry_run_id, hospital_id=hospital_id, takes_part=answer.takes_part)


def _end(runtime: Runtime, dry_run_id: str, problem: str | None) -> None:
    with runtime.database.session() as session:
        if problem is not None:
            fail(session, dry_run_id, problem)
        else:
            _row(repository.dry_run(session, dry_run_id)).ended_at = utc_now()


def _row(row: DryRun | None) -> DryRun:
    if row is None:
        raise ConflictError("This question is gone.")
    return row
