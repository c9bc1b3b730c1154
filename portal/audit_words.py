"""The audit's entries as sentences: who, what, about what; whatever a sentence does not say stands beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from server.audit.schemas import AuditView
from shared.contracts.case import CaseState
from shared.contracts.ontology import CellClass

ACTIONS: Final = {
    "audit.exported": "exported entries of the audit",
    "account.created": "added the account",
    "account.activated": "let the account in again",
    "account.deactivated": "deactivated the account",
    "account.changed": "changed name, role or hospital of the account",
    "account.signed_in": "signed in",
    "account.signed_out": "signed out",
    "account.sign_in_failed": "gave a wrong password",
    "account.locked": "locked the account after failed attempts",
    "account.code_refused": "gave a wrong code",
    "account.address_held": "stopped listening to the address after failed attempts",
    "account.password_changed": "changed the password",
    "account.second_factor_on": "set up the second factor",
    "account.second_factor_off": "turned the second factor off",
    "account.second_factor_reset": "reset the second factor",
    "account.recovery_codes_made": "got new recovery codes",
    "account.recovery_code_used": "signed in by a recovery code",
    "account.notices": "set the e-mail notices",
    "account.sessions_ended": "ended sessions",
    "invitation.made": "invited somebody",
    "invitation.taken_back": "took the invitation back",
    "invitation.taken_up": "took the invitation up",
    "hospital.kit_made": "made an enrolment kit",
    "hospital.tolerance": "set what the hospital may lose by a model",
    "hospital.contact": "set whom readers phone at the hospital",
    "hospital.blood_limits": "set the hospital's reference intervals",
    "hospital.targets": "set the hospital's turn-around targets",
    "hospital.references": "decided on sharing signed cells as references",
    "hospital.node_asked": "asked to join",
    "hospital.node_approved": "approved the node",
    "hospital.node_rejected": "rejected the node",
    "hospital.node_revoked": "revoked the node",
    "case.received": "took the case in",
    "case.quarantined": "put the case into quarantine",
    "case.state": "moved the case on",
    "case.claimed": "claimed the case",
    "case.taken_over": "took the case over",
    "case.released": "gave the case back",
    "case.assigned": "assigned the case",
    "case.unassigned": "took the assignment back",
    "case.signed": "signed the report",
    "case.glass_asked": "signed that the smear cannot be read, and asked for the glass slide",
    "case.amending": "took the signed case back to amend its report",
    "case.amending_left": "left the report as it stood",
    "findings.recorded": "entered a finding",
    "findings.taken_back": "took a finding back",
    "case.more_asked": "asked the hospital for more cells",
    "case.more_came": "sent more cells",
    "case.more_refused": "sent no more cells",
    "case.more_failed": "sent cells that were not taken in",
    "case.more_lapsed": "gave up waiting for more cells",
    "consult.asked": "asked a colleague",
    "consult.answered": "answered a question",
    "consult.resolved": "closed a question",
    "consult.reopened": "opened a question again",
    "cells.reclassified": "changed the class of cells",
    "cells.accepted": "confirmed the class of cells",
    "cells.added": "marked a cell that was missed",
    "cells.split": "split a cell in two",
    "cells.merged": "merged cells into one",
    "cells.change_undone": "took a change back",
    "cells.change_redone": "made a change again",
    "opinion.first_saved": "saved a first impression without the AI",
    "opinion.second_saved": "saved a second opinion",
    "opinion.asked": "asked for a second opinion",
    "opinion.taken": "took the second opinion on",
    "opinion.withdrawn": "withdrew the request for a second opinion",
    "report.rendered": "made the report's documents",
    "report.acknowledged": "acknowledged the report",
    "federation.start": "launched the run",
    "federation.stop": "asked the run to stop",
    "federation.pause": "asked the run to pause",
    "federation.resume": "resumed the run",
    "federation.recover": "resumed the run after its process had ended",
    "federation.schedule_add": "made the schedule",
    "federation.schedule_remove": "removed the schedule",
    "federation.schedule_skip": "did not launch by the schedule",
    "federation.dry_run": "asked the hospitals in",
    "federation.base_fetched": "fetched the pretrained network of a run",
    "federation.refused": "took no part in what a run asked",
    "model.register": "registered the candidate",
    "model.promote": "promoted the model",
    "model.rollback": "rolled back to the model",
    "model.installed": "installed the model",
    "model.held": "held the model back",
    "model.refused": "refused the model",
    "model.rolled_back": "rolled the model back at the hospital",
}
SUBJECTS: Final = {
    "user": "account",
    "invitation": "invitation",
    "address": "network address",
    "run": "run",
    "dry-run": "dry run",
    "schedule": "schedule",
    "model": "model",
    "case": "case",
    "hospital": "hospital",
}
NAMES: Final = {"sha256": "SHA-256", "pdf_sha256": "SHA-256 of the PDF", "hospital_id": "hospital"}
SHORT: Final = 10
_STATES: Final = {state.value: state.value.replace("_", " ") for state in CaseState}
_CLASSES: Final = {cls.value: cls.info.name for cls in CellClass}


@dataclass(frozen=True)
class Line:
    """An entry for people."""

    subject: str
    seq: int
    at: datetime
    who: str
    what: str
    about: str
    details: list[tuple[str, str]]


def line(entry: AuditView, names: Mapping[str, str]) -> Line:
    """Return an entry as words; ``names``: what people call actors and subjects (``user:…``, ``node:…``)."""
    return Line(
        subject=entry.subject,
        seq=entry.seq,
        at=entry.at,
        who=names.get(entry.actor) or ("the centre" if entry.actor.startswith("system") else entry.actor_name),
        what=plain_action(entry.action),
        about=_about(entry.subject, names),
        details=[_detail(name, value, names) for name, value in entry.data.items()],
    )


def plain_action(action: str) -> str:
    """Return an action in words."""
    return ACTIONS.get(action, action.replace(".", ": ").replace("_", " "))


def _about(subject: str, names: Mapping[str, str]) -> str:
    kind, _, key = subject.partition(":")
    shown = names.get(subject) or (key[:SHORT] if len(key) > 24 else key)
    return f"{SUBJECTS.get(kind, kind)} {shown}"


def _detail(name: str, value: Any, names: Mapping[str, str]) -> tuple[str, str]:  # Any: as below
    if name == "hospital_id" and value is None:
        return "hospital", "none"
    if name == "gate":
        return "the gate", "passes" if value else "blocks"
    return NAMES.get(name, _plain(name)), _value(value, names)


def _value(value: Any, names: Mapping[str, str]) -> str:  # Any: audit data have their action's own shape
    if value is None:
        return "nobody"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{_plain(str(key))} {_value(part, names)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(part, names) for part in value)
    text = str(value)
    for kind in ("user", "node", "hospital"):
        if f"{kind}:{text}" in names:
            return names[f"{kind}:{text}"]
    if len(text) >= 32 and all(letter in "0123456789abcdef" for letter in text):
        return f"{text[:SHORT]}…"
    return _CLASSES.get(text) or _STATES.get(text, text)


def _plain(name: str) -> str:
    return name.removesuffix("_id").replace("_", " ")
