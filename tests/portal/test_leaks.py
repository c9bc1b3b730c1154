"""What is hidden from a blind reader leaks over no route: with other hidden content not one byte of an answer changes.

The routes are taken from the application, so that a page that shows a part of a case is tried as soon as it is there.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from sqlmodel import select

from portal.access import RULES
from server.accounts.roles import Role
from server.cases import service as cases
from server.cases import views
from server.consult import service as consult
from server.consult.schemas import About, Asked
from server.insights import measures
from server.models import Case, CaseCell, Opinion, Report
from server.reviews import amending, findings, geometry, second_opinions
from server.reviews import service as reviews
from server.reviews.schemas import NewBox
from shared.contracts.ontology import CellClass
from shared.contracts.report import ReportStatus
from tests.portal.matrix import OWN, World, every_route, make_world
from tests.portal.matrix_rows import MATRIX
from tests.reading import look_through, sign_input

CASES = ("case", "drawn", "second", "compared", "signed")
"""What in an address stands for a case."""
BESIDE = ("/worklist?flag=blast.present", "/worklist?search=blast", "/worklist?state=all", "/worklist?mine=1")
CANARY = "canary-of-the-hidden"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("centre"))
    yield made
    made.client.close()
    made.network.centre.runtime.database.dispose()


def _answers(
    world: World, case_id: str, *prepare: Callable[[], None], report: str = ""
) -> dict[str, tuple[int, bytes]]:
    """Return what the reader is told at every address that they may open, wherever a case is named: of this case.

    ``report``: what in an address stands for a report, if not that of another case.

    The world is as it was made, but for what ``prepare`` does first.
    """
    world.changed = True
    world.restore_if_changed()
    for step in prepare:
        step()
    named = {**world.things[OWN], **dict.fromkeys(CASES, case_id), "asked": "none", "phrase": "none", "thread": "none"}
    named |= {"report": report} if report else {}
    routes = every_route(world.app)
    lines = {name: row for name, row in MATRIX.items() if Role.HEMATOLOGIST in RULES[name]}
    found = {}
    for name, row in lines.items():
        if "GET" in (routes[name].methods or ()):
            path = row.asked.removeprefix("GET ").format_map(named)
            answer = world.ask("hematologist", "GET", path, {})
            found[path] = (answer.status_code, answer.content)
    for path in BESIDE:
        answer = world.ask("hematologist", "GET", path, {})
        found[path] = (answer.status_code, answer.content)
    # Who gives a case back reads it no more: last. Saving a blind reading shows what was hidden: not here.
    for name in sorted(lines, key=lambda name: name == "case_release"):
        row = lines[name]
        if row.asked.startswith("POST /cases/") and name != "blind_save":
            path = row.asked.removeprefix("POST ").format_map(named)
            answer = world.ask("hematologist", "POST", path, row.fields)
            found[f"POST {path}"] = (answer.status_code, answer.content)
    return found


def _changed(before: dict[str, tuple[int, bytes]], after: dict[str, tuple[int, bytes]]) -> list[str]:
    """Return where the answers differ, and from which place on."""
    told = []
    for path, (status, content) in before.items():
        other = after[path][1]
        if after[path] != (status, content):
            same = next((at for at, pair in enumerate(zip(content, other, strict=False)) if pair[0] != pair[1]), 0)
            parts = [text[max(0, same - 60) : same + 60] for text in (content, other)]
            told.append(f"{path} {status} {after[path][0]}: {parts}")
    return told


def _another_ai(world: World, case_id: str) -> None:
    """Have the AI say something else of every cell, and of the case."""
    with world.network.centre.runtime.database.session() as session:
        case = session.get_one(Case, case_id)
        flag = {
            "id": "blast.present",
            "severity": "critical",
            "kind": "morphology",
            "evidence": {"text": CANARY, "cells": ["c3"], "count": 7, "total": 22, "percent": 31.8, "threshold": 1.0},
        }
        case.flags, case.doubtful_count, case.model_version = [flag], 21, CANARY
        views.index_flags(case, views.flags_of(case))
        case.differential, case.untrained_classes = {}, ["plasma_cell"]
        case.quality = {**case.quality, "white_cells": 7, "ood_fraction": 0.77, "rejected": {}}
        for cell in session.exec(select(CaseCell).where(CaseCell.case_id == case_id)):
            cell.ai_class = cell.current_class = CellClass.BLAST
            cell.ai_probability, cell.ai_margin, cell.ood_score = 0.123, 0.0456, 3.21
            cell.prediction_set, cell.provisional = ["blast", "plasma_cell"], True
        measures.measure(session, case)


def test_another_ai_changes_no_answer_while_a_case_is_read_blind(world: World) -> None:
    case_id = world.things[OWN]["drawn"]
    with time_machine.travel(datetime.now(UTC), tick=False):
        before = _answers(world, case_id)
        after = _answers(world, case_id, lambda: _another_ai(world, case_id))
    assert _changed(before, after) == []
    assert (before[f"/cases/{case_id}"][0], before[f"POST /cases/{case_id}/blind/cells"][0]) == (200, 200)


@pytest.mark.parametrize("taken", [False, True])
def test_another_ai_changes_no_answer_to_a_second_reader_who_is_not_to_see_it(world: World, *, taken: bool) -> None:
    case_id = world.things[OWN]["second"]

    def begin() -> None:
        with world.network.centre.runtime.database.session() as session:
            session.exec(select(Opinion).where(Opinion.case_id == case_id)).one().hides_ai = True
        if taken:
            assert world.ask("hematologist", "POST", f"/cases/{case_id}/blind/take", {}).status_code == 303

    with time_machine.travel(datetime.now(UTC), tick=False):
        before = _answers(world, case_id, begin)
        after = _answers(world, case_id, begin, lambda: _another_ai(world, case_id))
    assert _changed(before, after) == []
    assert before[f"/cases/{case_id}"][0] == 200
    assert b"without the AI" in before["/worklist"][1]
    assert case_id.encode() not in before["/worklist?flag=blast.present"][1]


def test_another_ai_shows_where_nothing_is_hidden(world: World) -> None:
    case_id = world.things[OWN]["case"]
    with time_machine.travel(datetime.now(UTC), tick=False):
        before = _answers(world, case_id)
        after = _answers(world, case_id, lambda: _another_ai(world, case_id))
    told = {line.split(" ")[0] for line in _changed(before, after)}
    assert {f"/cases/{case_id}", f"/cases/{case_id}.json", "/worklist", "/worklist?flag=blast.present"} <= told
    assert CANARY.encode() in after[f"/cases/{case_id}"][1]


def test_what_the_first_reader_does_changes_no_answer_to_the_second(world: World) -> None:
    runtime, first, case_id = world.network.centre.runtime, world.network.people["second"], world.things[OWN]["second"]

    def name(cells: list[str], label: CellClass) -> None:
        with runtime.database.session() as session:
            reviews.reclassify(
                session, first, case_id, cell_ids=cells, label=label, idempotency_key=f"{label}-{cells[0]}"
            )
            reviews.save_impression(session, first, case_id, f"{CANARY} {label}")

    def begin() -> None:
        name(["c1"], CellClass.MONOCYTE)
        assert world.ask("hematologist", "POST", f"/cases/{case_id}/blind/take", {}).status_code == 303

    def go_on() -> None:
        name(["c2", "c3", "c4"], CellClass.PLASMA_CELL)
        place = NewBox(cell_id="r0123456789ab", box=(10, 180, 60, 230))
        geometry.add(runtime, first, case_id, field=0, place=place, label=CellClass.BLAST, idempotency_key="added-one")
        with runtime.database.session() as session:
            findings.record(
                session, first, case_id, item="text.red_cells", value=CANARY, idempotency_key="found", few=frozenset()
            )
        geometry.merge(runtime, first, case_id, cell_ids=["c5", "c6"], new_id="r0123456789ac", idempotency_key="merged")

    with time_machine.travel(datetime.now(UTC), tick=False):
        before = _answers(world, case_id, begin)
        after = _answers(world, case_id, begin, go_on)
    assert _changed(before, after) == []
    assert (before[f"/cases/{case_id}"][0], before[f"POST /cases/{case_id}/blind/cells"][0]) == (200, 200)
    with runtime.database.session(read_only=True) as session:
        marked = next(cell.blob for cell in cases.case_view(session, first, case_id).cells if cell.added_by)
    assert world.ask("hematologist", "GET", f"/cases/{case_id}/blobs/{marked}", {}).status_code == 404


def test_what_the_first_reader_signed_changes_no_answer_to_the_second_while_it_is_amended(world: World) -> None:
    runtime, first, case_id = world.network.centre.runtime, world.network.people["second"], world.things[OWN]["second"]
    signed = "0123456789abcdef0123456789abcdef"

    def amend(cells: list[str], label: CellClass, said: str) -> None:
        with runtime.database.session() as session:
            asked = session.exec(select(Opinion).where(Opinion.case_id == case_id)).one()
            second_opinions.withdraw(session, first, case_id, asked.id)
            reviews.reclassify(session, first, case_id, cell_ids=cells, label=label, idempotency_key="before-signing")
            look_through(session, first, case_id)
            signing = sign_input(session, first, case_id, impression=said)
            report_id = reviews.sign(session, first, runtime, case_id, signing)
            session.get_one(Report, report_id).id = signed
            session.flush()
            amending.begin(session, first, case_id, kind=ReportStatus.AMENDED, reason=said)
            of = world.network.people["reader"].user_id
            second_opinions.ask(session, first, case_id, of=of, question="Blasts?", hides_ai=False)

    with time_machine.travel(datetime.now(UTC), tick=False):
        before = _answers(world, case_id, lambda: amend(["c1"], CellClass.MONOCYTE, "Normal."), report=signed)
        named = ["c1", "c2", "c3"]
        after = _answers(world, case_id, lambda: amend(named, CellClass.BLAST, CANARY), report=signed)
    assert _changed(before, after) == []
    assert (before[f"/cases/{case_id}"][0], before[f"POST /cases/{case_id}/blind/cells"][0]) == (200, 200)
    assert before[f"/reports/{signed}"][0] == 404
    assert case_id.encode() not in before["/reports.json"][1]


def test_question_tells_the_second_reader_nothing_but_that_it_waits(world: World) -> None:
    runtime, first, case_id = world.network.centre.runtime, world.network.people["second"], world.things[OWN]["second"]
    world.changed = True
    world.restore_if_changed()
    asked = Asked(text=CANARY, people=[world.network.people["reader"].user_id], key="asked-one")
    with runtime.database.session() as session:
        consult.ask(session, first, case_id, About(), asked)
    told = world.ask("hematologist", "GET", f"/cases/{case_id}/consult", {})
    assert (told.status_code, CANARY in told.text) == (409, False)
    for path in (f"/cases/{case_id}", f"/cases/{case_id}.json", "/worklist"):
        assert CANARY not in world.ask("hematologist", "GET", path, {}).text
