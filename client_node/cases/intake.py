"""Puts flagged smears into the outbox: the identity into the hospital's own store first, then the case."""

from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict

from client_node.cases.bundle import load_smear
from client_node.cases.context import LocalContext
from client_node.cases.identity import IdentityStore
from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox
from client_node.cases.pseudonym import new_case_id
from client_node.home import NodeHome
from client_node.policy import DAY, load_policy
from shared.contracts.analysis import Flag, Severity, Smear
from shared.contracts.case import Priority

log = structlog.get_logger(__name__)


class QueuedCase(BaseModel):
    """A smear that became a case."""

    model_config = ConfigDict(frozen=True)

    smear_id: str
    case_id: str
    priority: Priority
    new: bool
    """False: this smear had become a case before, and is not sent twice."""


def worth_reading(smear: Smear) -> tuple[Flag, ...]:
    """Return the flags that make a smear worth a reader: those of morphology, never those of quality alone."""
    return tuple(flag for flag in smear.flags if flag.kind == "morphology")


def send_flagged(
    home: NodeHome | Path, smears: tuple[Smear, ...], context: LocalContext, *, priority: Priority | None = None,
    incoming: bool = False,
) -> list[QueuedCase]:  # fmt: skip
    """Put each smear with a morphology flag into the outbox; ``priority`` overrides what its flags ask for.

    Raises:
        PolicyRefusedError: the hospital does not send cases, or no more today.
    """
    place = NodeHome(home)
    flagged = [smear for smear in smears if worth_reading(smear)]
    return [_queue(place, smear.id, context, priority=priority, incoming=incoming) for smear in flagged]


def priority_of(smear: Smear) -> Priority:
    """Return the priority that a smear's flags ask for."""
    severities = {flag.severity for flag in worth_reading(smear)}
    if Severity.CRITICAL in severities:
        return Priority.STAT
    return Priority.URGENT if Severity.URGENT in severities else Priority.ROUTINE


def _queue(
    home: NodeHome, smear_id: str, context: LocalContext, *, priority: Priority | None, incoming: bool
) -> QueuedCase:
    outbox, known = Outbox(home), Outbox(home).of_smear(smear_id)
    if known is not None:
        return QueuedCase(smear_id=smear_id, case_id=known.case_id, priority=known.priority, new=False)
    load_policy(home).check_send(Ledger(home).cases_since(DAY) + outbox.waiting(), incoming=incoming)
    case_id = new_case_id()
    if context.identity is not None:
        IdentityStore(home).put(case_id, context.identity)
    chosen = priority or priority_of(load_smear(home, smear_id))
    case, new = outbox.enqueue(
        smear_id=smear_id, priority=chosen, context=context.leaving(home, smear_id), case_id=case_id
    )
    log.info("case.queued", case_id=case.case_id, smear_id=smear_id, priority=case.priority.value)
    return QueuedCase(smear_id=smear_id, case_id=case.case_id, priority=case.priority, new=new)
