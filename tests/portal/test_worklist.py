"""The worklist's pages: lines as data, live changes, bulk assignment, saved views, targets."""

import asyncio
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from sqlmodel import Session

from portal import worklist_feed, worklist_words
from server.accounts import service as accounts
from server.accounts.schemas import Principal
from server.cases import saved_views, worklist
from server.cases import service as cases
from server.cases.schemas import Sort, WorklistFilter
from server.models import Case
from server.models.base import utc_now
from shared.contracts.case import Priority
from tests.portal.client import Browser
from tests.portal.factories import Network


def add_cases(session: Session, network: Network, count: int, *, first: int = 0) -> list[str]:
    """Add copies of the network's case, with every priority and at many moments."""
    pattern = session.get_one(Case, network.cases[0])
    made = []
    for number in range(first, first + count):
        case = Case(**pattern.model_dump())
        case.id = f"HV-{number:08d}"
        case.priority = list(Priority)[number % 3]
        case.received_at = utc_now() - timedelta(minutes=number % 300)
        case.due_at = case.received_at + timedelta(hours=(1, 4, 24)[number % 3])
        session.add(case)
        made.append(case.id)
    session.flush()
    return made


def test_lines_come_as_data_page_after_page(reader: Browser, network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        add_cases(session, network, 150)
    first = reader.get("/worklist/rows?sort=doubtful&most=100").json()
    rest = reader.get(f"/worklist/rows?sort=doubtful&most=100&after={first['rows'][-1]['id']}").json()
    assert (len(first["rows"]), first["more"], len(rest["rows"]), rest["more"]) == (100, True, 51, False)
    assert len({row["id"] for row in first["rows"] + rest["rows"]}) == first["matching"] == 151
    assert (first["title"], "<tr" in first["rows"][0]["html"]) == ("(151 · 50 STAT) Worklist", True)
    assert reader.get("/worklist?sort=doubtful").text.count('<tr id="row-') == 100


def test_changed_lines_are_told_if_they_still_fit(reader: Browser, network: Network) -> None:
    (case_id,) = network.cases
    told = reader.get(f"/worklist/lines?case_id={case_id}&case_id=HV-00000000").json()
    assert [row["id"] for row in told["rows"]] == [case_id]
    assert reader.get(f"/worklist/lines?case_id={case_id}&reader=me").json()["rows"] == []


def test_what_no_database_keeps_is_left_out_of_a_search_and_of_a_name(reader: Browser, network: Network) -> None:
    (case_id,) = network.cases
    told = reader.get(f"/worklist/rows?search=%00{case_id[:6]}%07&flag=%00&hospital=%00&reader=%00").json()
    assert [row["id"] for row in told["rows"]] == [case_id]
    reader.post("/worklist/views", {"name": "Ho\x00t\x07", "filters": "priority=stat&search=%00a"})
    with network.centre.runtime.database.session() as session:
        (view,) = saved_views.views_of(session, network.people["reader"])
    assert (view.name, view.wanted.search) == ("Hot", "a")


def test_question_about_a_field_that_no_smear_has_is_refused(reader: Browser, network: Network) -> None:
    (case_id,) = network.cases
    asked: dict[str, str | list[str]] = {
        "text": "x", "people": network.people["second"].user_id, "idempotency_key": "k" * 12,
        "field": "0", "box": ["0", "0", "1", "1"],
    }  # fmt: skip
    wrong = {"field": str(10**30), "people": "\x00", "idempotency_key": "\x00" * 9}
    for name, value in [*wrong.items(), ("field", "-1")]:
        assert reader.post(f"/cases/{case_id}/consult", asked | {name: value}).status_code == 422, name
    assert reader.post(f"/cases/{case_id}/consult", asked).status_code == 200


def test_default_view_opens_and_an_explicit_address_is_left_alone(reader: Browser) -> None:
    assert reader.get("/worklist").status_code == 200
    made = reader.post("/worklist/views", {"name": "Hot", "filters": "priority=stat&sort=due", "default": "true"})
    told = parse_qs(urlsplit(made.headers["location"]).query)
    assert {key: told[key] for key in ("priority", "sort", "state")} == {
        "priority": ["stat"], "sort": ["due"], "state": ["open"],
    }  # fmt: skip
    assert reader.get("/worklist").headers["location"] == made.headers["location"]
    page = reader.get(made.headers["location"]).text
    assert 'aria-current="page" data-view=' in page
    assert reader.get("/worklist?state=open").status_code == 200
    changed = made.headers["location"].replace("priority=stat", "priority=urgent")
    assert "Update “Hot”" in reader.get(changed).text
    view = told["view"][0]
    kept = reader.post(f"/worklist/views/{view}", {"filters": urlsplit(changed).query, "default": "false"})
    assert "priority=urgent" in kept.headers["location"]
    assert reader.get("/worklist").status_code == 200
    assert reader.post(f"/worklist/views/{view}/delete").status_code == 303
    assert reader.post("/worklist/views", {"name": "x", "filters": "sort=nothing"}).status_code == 400


def test_bulk_assignment_tells_every_failure(reader: Browser, network: Network) -> None:
    (case_id,) = network.cases
    second = network.people["second"]
    with network.centre.runtime.database.session() as session:
        free = add_cases(session, network, 2)
        cases.claim(session, second, case_id)
    fields: dict[str, str | list[str]] = {"case_id": [*free, case_id], "to": network.people["reader"].user_id}
    told = reader.post("/worklist/assign", fields, Accept="application/json").json()
    assert (told["done"], told["to"]["name"]) == (free, "Dr. A. Reader")
    assert told["failed"] == [
        {"case_id": case_id, "reason": "Dr. M. Osei is reading it; take it over if you have agreed."}
    ]
    page = reader.get("/worklist?state=open").text
    assert "<b>2</b>yours" in page


def test_a_follower_is_told_what_others_change_and_when_its_session_ends(network: Network) -> None:
    runtime, (case_id,) = network.centre.runtime, network.cases
    with runtime.database.session() as session:
        token, principal = accounts.open_session(session, network.people["reader"].user_id)

    async def listen() -> list[worklist_feed.Message]:
        heard, acts = [], [lambda session: cases.claim(session, network.people["second"], case_id), None]
        async for message in worklist_feed.follow(runtime, token=token, seconds=30):
            heard.append(message)
            if message["event"] in {"ready", "rows"}:
                act = acts.pop(0)
                with runtime.database.session() as session:
                    if act:
                        act(session)
                    else:
                        accounts.close_session(session, token)
        return heard

    before = worklist_feed.SESSION_SECONDS
    worklist_feed.SESSION_SECONDS = 0.5
    try:
        heard = asyncio.run(asyncio.wait_for(listen(), 60))
    finally:
        worklist_feed.SESSION_SECONDS = before
    assert [message["event"] for message in heard] == ["ready", "rows", "end"]
    assert heard[1]["data"] == f'["{case_id}"]'
    assert isinstance(principal, Principal)


def test_clock_says_late_and_near_in_words(network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        add_cases(session, network, 3)
        now = utc_now()
        for number, (got, due) in enumerate(((-10, 50), (-50, 10), (-70, -10))):
            case = session.get_one(Case, f"HV-{number:08d}")
            case.received_at, case.due_at = now + timedelta(minutes=got), now + timedelta(minutes=due)
        session.flush()
        wanted = WorklistFilter(sort=Sort.CASE)
        rows = worklist.worklist(session, network.people["reader"], wanted).rows[:3]
    clocks = [worklist_words.clock(row) for row in rows]
    assert [(clock.tone, clock.words, clock.fifths) for clock in clocks if clock] == [
        ("", "50 min left", 1), ("soon", "10 min left", 5), ("late", "late 10 min", 5),
    ]  # fmt: skip


def test_a_view_is_nobody_elses(reader: Browser, network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        theirs = saved_views.save(session, network.people["second"], name="Theirs", wanted=WorklistFilter())
    assert reader.post(f"/worklist/views/{theirs.id}", {"name": "Mine now"}).status_code == 404
    assert "Theirs" not in reader.get("/worklist").text


def test_targets_are_set_on_the_hospitals_page(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    assert visitor.post("/hospitals/a/targets", {"stat": "45", "urgent": "", "routine": "soon"}).status_code == 400
    assert visitor.post("/hospitals/a/targets", {"stat": "45", "urgent": "", "routine": "600"}).status_code == 303
    page = visitor.get("/nodes/node-a").text
    assert "STAT 45 min, urgent 4 h" in page.replace(' <span class="muted">as everywhere</span>', "")
    with network.centre.runtime.database.session() as session:
        assert worklist.targets(session, "a") == {Priority.STAT: 45, Priority.URGENT: None, Priority.ROUTINE: 600}
