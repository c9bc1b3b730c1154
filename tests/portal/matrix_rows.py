"""The table of the matrix: what becomes of every route of the portal as every role asks it.

The outcomes are written out rather than taken from the rules, so that a slip in the rules shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from server.cases import saved_views
from server.cases import service as cases
from server.cases.schemas import WorklistFilter
from server.consult import service as consult
from server.consult.schemas import About, Asked
from server.reviews import amending, findings, opinions, phrases, second_opinions, undoing
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus
from tests.factories import PASSWORD
from tests.portal.matrix import OTHER, OWN, World, start_another_run
from tests.reading import look_through

KEY = {"idempotency_key": "tried-by-the-matrix"}
PERSON = {"username": "new.one", "display_name": "Dr. N. Ew", "role": "auditor", "password": PASSWORD}
QUESTION = {"text": "Is this a blast?", **KEY}
PLAN = {"rounds": "2", "min_sites": "1"}


@dataclass(frozen=True)
class Row:
    """A route as it is asked, and what becomes of it: a word a column of `ROLES`."""

    asked: str
    outcomes: str
    fields: Mapping[str, str | list[str]] = field(default_factory=dict)
    before: Callable[[World], Mapping[str, str | list[str]]] | None = None
    """What must be so first; returns further fields, or things to name in the address."""


def _under_way(world: World) -> dict[str, str]:
    return {"run": start_another_run(world)}


def _sign(world: World) -> dict[str, str | list[str]]:
    with world.network.centre.runtime.database.session() as session:
        reader, case_id = world.network.people["reader"], world.things[OWN]["case"]
        look_through(session, reader, case_id)
        case = cases.case_view(session, reader, case_id)
        return {"case_version": str(case.version), "shown": [flag.shown for flag in case.flags]}


def _undone(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        undoing.undo(session, world.network.people["reader"], world.things[OWN]["case"], "undone-by-the-matrix")
    return {}


def _named_blind(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        opinions.classify(
            session, world.network.people["reader"], world.things[OWN]["drawn"],
            cell_ids=["c1"], label=CellClass.MONOCYTE, idempotency_key="named-by-the-matrix",
        )  # fmt: skip
    return {}


def _unnamed_blind(world: World) -> dict[str, str]:
    _named_blind(world)
    with world.network.centre.runtime.database.session() as session:
        case_id = world.things[OWN]["drawn"]
        opinions.undo(session, world.network.people["reader"], case_id, "undone-by-the-matrix")
    return {}


def _asked(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        reader, case_id = world.network.people["reader"], world.things[OWN]["case"]
        return {"asked": second_opinions.ask(session, reader, case_id, of=None, question="", hides_ai=False)}


def _found(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        findings.record(
            session, world.network.people["reader"], world.things[OWN]["case"], item="grade.macrocytes", value=2,
            idempotency_key="found-by-the-matrix", few=frozenset(),
        )  # fmt: skip
    return {}


def _amending(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        reader, case_id = world.network.people["reader"], world.things[OWN]["signed"]
        amending.begin(session, reader, case_id, kind=ReportStatus.AMENDED, reason="Read again.")
    return {}


def _kept(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        return {"phrase": phrases.keep(session, world.network.people["reader"], "platelets", "Large forms.").id or ""}


def _a_colleague(world: World) -> dict[str, str]:
    return {"people": world.network.people["second"].user_id}


def _questioned(world: World) -> dict[str, str]:
    people = world.network.people
    asked = Asked(text="Is this a blast?", people=[people["second"].user_id], key="asked-by-the-matrix")
    with world.network.centre.runtime.database.session() as session:
        thread = consult.ask(session, people["reader"], world.things[OWN]["case"], About(), asked)
    return {"thread": thread}


def _own_view(world: World) -> dict[str, str]:
    with world.network.centre.runtime.database.session() as session:
        made = saved_views.save(session, world.network.people["reader"], name="Own", wanted=WorklistFilter())
    return {"view": made.id}


# nobody · hematologist · coordinator · auditor · admin · IT of the hospital · IT of another hospital
MATRIX: Final[dict[str, Row]] = {
    "healthz": Row("GET /healthz", "200 200 200 200 200 200 200"),
    "login_form": Row("GET /login", "200 303 303 303 303 303 303"),
    "login": Row("POST /login", "403 403 403 403 403 403 403", {"username": "reader", "password": "x"}),
    "login_code_form": Row("GET /login/code", "login login login login login login login"),
    "login_code": Row("POST /login/code", "403 403 403 403 403 403 403", {"code": "123456"}),
    "login_set_up_form": Row("GET /login/second-factor", "login login login login login login login"),
    "login_set_up": Row("POST /login/second-factor", "login login login login login login login", {"code": "123456"}),
    "invitation": Row("GET /login/invitation/{link}", "200 200 200 200 200 200 200"),
    "invitation_accept": Row("POST /login/invitation/{link}", "403 403 403 403 403 403 403", {**PERSON, "again": "x"}),
    "logout": Row("POST /logout", "login login login login login login login"),
    "home": Row("GET /", "login 303 303 303 303 303 303"),
    # One's own account, whoever one is; what is somebody else's is not found there.
    "account": Row("GET /account", "login 200 200 200 200 200 200"),
    "account_notices": Row(
        "POST /account/notices", "login 303 303 303 303 303 303", {"email": "a@b.example", "wanted": "true"}
    ),
    "account_password": Row(
        "POST /account/password",
        "login 303 303 303 303 303 303",
        {"old": PASSWORD, "new": "another good password", "again": "another good password"},
    ),
    "second_factor_begin": Row(
        "POST /account/second-factor", "login 303 303 303 303 303 303", {"password": PASSWORD}
    ),
    "second_factor_form": Row("GET /account/second-factor", "login 409 409 409 409 409 409"),
    "second_factor_confirm": Row(
        "POST /account/second-factor/confirm", "login 409 409 409 409 409 409", {"code": "123456"}
    ),
    "second_factor_off": Row(
        "POST /account/second-factor/off", "login 409 409 409 409 409 409", {"password": PASSWORD}
    ),
    "recovery_codes": Row("POST /account/recovery-codes", "login 409 409 409 409 409 409", {"password": PASSWORD}),
    "session_end": Row("POST /account/sessions/{session}/end", "login 404 404 404 404 303 404"),
    "sessions_end_others": Row("POST /account/sessions/end-others", "login 303 303 303 303 303 303"),
    # Cases are read by hematologists; hospital IT sees what comes of them.
    "worklist": Row("GET /worklist", "login 200 403 403 200 403 403"),
    "worklist_rows": Row("GET /worklist/rows", "login 200 403 403 200 403 403"),
    "worklist_lines": Row("GET /worklist/lines?case_id={case}", "login 200 403 403 200 403 403"),
    "worklist_events": Row("GET /worklist/events?seconds=0", "login 200 403 403 200 403 403"),
    "worklist_assign": Row("POST /worklist/assign", "login 303 403 403 403 403 403", {"case_id": "HV-00000000"}),
    # A view is its owner's alone: whoever made none finds none.
    "view_save": Row("POST /worklist/views", "login 303 403 403 303 403 403", {"name": "My own"}),
    "view_update": Row("POST /worklist/views/{view}", "login 303 403 403 404 403 403", {"name": "Mine"}, _own_view),
    "view_delete": Row("POST /worklist/views/{view}/delete", "login 303 403 403 404 403 403", before=_own_view),
    "case": Row("GET /cases/{case}", "login 200 403 403 200 403 403"),
    "case_json": Row("GET /cases/{case}.json", "401 200 403 403 200 403 403"),
    "case_history": Row("GET /cases/{case}/history", "login 200 403 403 200 403 403"),
    "case_blob": Row("GET /cases/{case}/blobs/field-0.jpg", "login 200 403 403 200 403 403"),
    "case_claim": Row("POST /cases/{case}/claim", "login 303 403 403 403 403 403"),
    "case_heartbeat": Row("POST /cases/{case}/heartbeat", "login 200 403 403 403 403 403"),
    "case_release": Row("POST /cases/{case}/release", "login 303 403 403 403 403 403"),
    "case_cells": Row(
        "POST /cases/{case}/cells", "login 200 403 403 403 403 403", {"cell_id": "c2", "label": "monocyte", **KEY}
    ),
    "case_undo": Row("POST /cases/{case}/undo", "login 200 403 403 403 403 403", KEY),
    "case_redo": Row("POST /cases/{case}/redo", "login 200 403 403 403 403 403", KEY, _undone),
    "case_accept": Row("POST /cases/{case}/accept", "login 200 403 403 403 403 403", {"cell_id": "c2", **KEY}),
    "case_seen": Row("POST /cases/{case}/seen", "login 200 403 403 403 403 403", {"group": "monocyte"}),
    "case_cell_add": Row(
        "POST /cases/{case}/cells/new",
        "login 200 403 403 403 403 403",
        {"new_id": "r0123456789ab", "field": "0", "box": ["10", "10", "60", "60"], "label": "monocyte", **KEY},
    ),
    "case_cell_split": Row(
        "POST /cases/{case}/cells/split",
        "login 200 403 403 403 403 403",
        {
            "cell_id": "c2", "new_id": ["r0123456789ab", "r0123456789ac"], **KEY,
            "box": ["10", "10", "60", "60", "70", "10", "120", "60"],
        },
    ),
    "case_cell_merge": Row(
        "POST /cases/{case}/cells/merge",
        "login 200 403 403 403 403 403",
        {"cell_id": ["c2", "c3"], "new_id": "r0123456789ab", **KEY},
    ),
    "case_images": Row("GET /cases/{case}/images?name=cell-c1.png", "login 200 403 403 200 403 403"),
    "case_tile": Row("GET /cases/{case}/fields/0/tiles/0_0_0.jpg", "login 200 403 403 200 403 403"),
    "case_compare": Row("GET /cases/{case}/compare?label=monocyte", "login 200 403 403 200 403 403"),
    "case_events": Row("GET /cases/{case}/events?seconds=0", "login 200 403 403 200 403 403"),
    "case_more": Row("GET /cases/{case}/more", "login 200 403 403 200 403 403"),
    "case_more_ask": Row("POST /cases/{case}/more", "login 200 403 403 403 403 403"),
    "case_consult": Row("GET /cases/{case}/consult", "login 200 403 403 200 403 403"),
    "consult_ask": Row("POST /cases/{case}/consult", "login 200 403 403 403 403 403", QUESTION, _a_colleague),
    "consult_reply": Row(
        "POST /cases/{case}/consult/{thread}/messages", "login 200 403 403 403 403 403", QUESTION, _questioned
    ),
    "consult_state": Row(
        "POST /cases/{case}/consult/{thread}/state",
        "login 200 403 403 403 403 403",
        {"resolved": "true", **KEY},
        _questioned,
    ),
    "consult_seen": Row("POST /cases/{case}/consult/seen", "login 200 403 403 403 403 403"),
    "case_impression": Row(
        "POST /cases/{case}/impression", "login 200 403 403 403 403 403", {"impression": "A draft."}
    ),
    "case_activity": Row("POST /cases/{case}/activity", "login 204 403 403 403 403 403", {"keys": "3"}),
    # Reading blind: nobody but the reader of such a case, and nobody sees anything before it is saved.
    "blind_cells": Row(
        "POST /cases/{drawn}/blind/cells",
        "login 200 403 403 403 403 403",
        {"cell_id": "c2", "label": "monocyte", **KEY},
    ),
    "blind_undo": Row("POST /cases/{drawn}/blind/undo", "login 200 403 403 403 403 403", KEY, _named_blind),
    "blind_redo": Row("POST /cases/{drawn}/blind/redo", "login 200 403 403 403 403 403", KEY, _unnamed_blind),
    "blind_draft": Row("POST /cases/{drawn}/blind/draft", "login 200 403 403 403 403 403", {"text": "Left shift?"}),
    "blind_save": Row(
        "POST /cases/{drawn}/blind/save", "login 303 403 403 403 403 403", {"text": "Left shift."}, _named_blind
    ),
    "blind_take": Row("POST /cases/{second}/blind/take", "login 303 403 403 403 403 403"),
    "opinion_ask": Row("POST /cases/{case}/opinions", "login 303 403 403 403 403 403", {"question": "Blasts?"}),
    "opinion_withdraw": Row(
        "POST /cases/{case}/opinions/{asked}/withdraw", "login 303 403 403 403 403 403", before=_asked
    ),
    "opinion": Row("GET /cases/{compared}/opinions/{opinion}", "login 200 403 403 200 403 403"),
    "case_sign": Row(
        "POST /cases/{case}/sign",
        "login 303 403 403 403 403 403",
        {
            "password": PASSWORD, "impression": "Nothing of note.",
            "flag": ["immature.granulocytes", "too_few_cells"], "reason": ["", ""], **KEY,
        },
        _sign,
    ),
    "case_findings": Row("GET /cases/{case}/findings", "login 200 403 403 200 403 403"),
    "case_finding": Row(
        "POST /cases/{case}/findings",
        "login 200 403 403 403 403 403",
        {"item": "grade.spherocytes", "value": "2", **KEY},
    ),
    "case_finding_undo": Row(
        "POST /cases/{case}/findings/undo", "login 200 403 403 403 403 403", KEY, _found
    ),
    "case_glass": Row(
        "POST /cases/{case}/glass",
        "login 303 403 403 403 403 403",
        {"password": PASSWORD, "reason": "out_of_focus", **KEY},
        _sign,
    ),
    "case_amend": Row(
        "POST /cases/{signed}/amend", "login 303 403 403 403 403 403", {"kind": "amended", "reason": "Read again."}
    ),
    "case_amend_leave": Row("POST /cases/{signed}/amend/leave", "login 303 403 403 403 403 403", before=_amending),
    "phrase_keep": Row(
        "POST /phrases", "login 200 403 403 403 403 403", {"place": "platelets", "text": "Large forms."}
    ),
    "phrase_remove": Row("POST /phrases/{phrase}/remove", "login 200 403 403 403 403 403", before=_kept),
    "reports": Row("GET /reports", "login 200 403 200 200 200 200"),
    "reports_json": Row("GET /reports.json", "401 200 403 200 200 200 200"),
    "report": Row("GET /reports/{report}", "login 200 403 200 200 200 404"),
    "report_pdf": Row("GET /reports/{report}.pdf", "login 200 403 200 200 200 404"),
    # Figures of many cases: for readers, and for who answers for the network.
    "insights": Row("GET /insights", "login 200 200 403 200 403 403"),
    "insights_json": Row("GET /insights.json", "401 200 200 403 200 403 403"),
    # Runs and models belong to the network; a hospital sees its own figures in them.
    "rounds": Row("GET /rounds", "login 403 200 200 200 200 200"),
    "round_start": Row("POST /rounds", "login 403 303 403 303 403 403", PLAN),
    "round": Row("GET /rounds/{run}", "login 403 200 200 200 200 200"),
    "round_json": Row("GET /rounds/{run}.json", "401 403 200 200 200 200 200"),
    "round_events": Row("GET /rounds/{run}/events", "login 403 200 200 200 200 200"),
    "round_stop": Row("POST /rounds/{run}/stop", "login 403 303 403 303 403 403", before=_under_way),
    "round_pause": Row("POST /rounds/{run}/pause", "login 403 303 403 303 403 403", before=_under_way),
    "round_resume": Row("POST /rounds/{stopped}/resume", "login 403 303 403 303 403 403"),
    "schedule_add": Row("POST /schedules", "login 403 303 403 303 403 403", PLAN),
    "schedule_remove": Row("POST /schedules/{schedule}/remove", "login 403 303 403 303 403 403"),
    "dry_run_start": Row("POST /dry-runs", "login 403 303 403 303 403 403", PLAN),
    "dry_run": Row("GET /dry-runs/{dry_run}", "login 403 200 200 200 200 200"),
    "dry_run_json": Row("GET /dry-runs/{dry_run}.json", "401 403 200 200 200 200 200"),
    "models": Row("GET /models", "login 200 200 200 200 200 200"),
    "model": Row("GET /models/{model}", "login 200 200 200 200 200 200"),
    "model_json": Row("GET /models/{model}.json", "401 200 200 200 200 200 200"),
    "model_promote": Row(
        "POST /models/{model}/promote", "login 403 303 403 303 403 403", {"override_reason": "Tried by the matrix"}
    ),
    "model_rollback": Row("POST /models/rollback", "login 403 303 403 303 403 403", {"reason": "Tried by the matrix"}),
    "hospital_references": Row(
        "POST /hospitals/{hospital}/references", "login 403 403 403 303 303 403", {"shares": "true"}
    ),
    "hospital_contact": Row(
        "POST /hospitals/{hospital}/contact", "login 403 303 403 303 303 403", {"name": "Desk", "phone": "+41 44 0"}
    ),
    "hospital_limits": Row(
        "POST /hospitals/{hospital}/blood-limits",
        "login 403 303 403 303 303 403",
        {"mcv_fl_low": "80", "mcv_fl_high": "98"},
    ),
    "hospital_targets": Row("POST /hospitals/{hospital}/targets", "login 403 303 403 303 303 403", {"stat": "45"}),
    "hospital_tolerance": Row(
        "POST /hospitals/{hospital}/tolerance", "login 403 303 403 303 303 403", {"points": "1"}
    ),
    "nodes": Row("GET /nodes", "login 403 200 200 200 200 200"),
    "nodes_json": Row("GET /nodes.json", "401 403 200 200 200 200 200"),
    "node": Row("GET /nodes/{node}", "login 403 200 200 200 200 404"),
    "node_approve": Row("POST /nodes/{waiting}/approve", "login 403 303 403 303 403 403"),
    "node_reject": Row("POST /nodes/{waiting}/reject", "login 403 303 403 303 403 403"),
    "node_revoke": Row("POST /nodes/{node}/revoke", "login 403 303 403 303 403 403"),
    "kit_make": Row(
        "POST /hospitals", "login 403 200 403 200 403 403", {"hospital_id": "harbour", "name": "Harbour Hospital"}
    ),
    "people": Row("GET /people", "login 403 200 403 200 403 403"),
    "person_add": Row("POST /people", "login 403 303 403 303 403 403", PERSON),
    "person_active": Row("POST /people/{person}/active", "login 403 303 403 303 403 403"),
    "person_change": Row(
        "POST /people/{person}",
        "login 403 403 403 303 403 403",
        {"display_name": "Dr. N. Ew", "role": "auditor"},
    ),
    "person": Row("GET /people/{person}", "login 403 200 403 200 403 403"),
    "person_sessions_end": Row("POST /people/{person}/sessions/end", "login 403 303 403 303 403 403"),
    "person_second_factor_reset": Row(
        "POST /people/{person}/second-factor/reset", "login 403 303 403 303 403 403"
    ),
    "invite": Row(
        "POST /people/invitations",
        "login 403 200 403 200 403 403",
        {"display_name": "Dr. N. Ew", "role": "hospital_it", "hospital_id": OTHER},
    ),
    "invite_revoke": Row("POST /people/invitations/{invitation}/revoke", "login 403 303 403 303 403 403"),
    "audit": Row("GET /audit", "login 403 403 200 200 403 403"),
    "audit_check": Row("GET /audit/check", "login 403 403 200 200 403 403"),
    "audit_csv": Row("GET /audit.csv", "login 403 403 200 200 403 403"),
    "turnaround": Row("GET /turnaround", "login 403 200 200 200 200 200"),
    "turnaround_json": Row("GET /turnaround.json", "401 403 200 200 200 200 200"),
}  # fmt: skip
