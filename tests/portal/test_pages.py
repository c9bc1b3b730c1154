"""Pages as people and scripts get them."""

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

import portal
from portal.main import create_app
from portal.rendering import FIRST_MODULES
from portal.security import HEADERS
from portal.sessions import SESSION_COOKIE
from server.reviews import opinions, second_opinions
from shared.contracts.ontology import CellClass
from tests.factories import PASSWORD, make_smear
from tests.portal.client import Browser, hidden
from tests.portal.drawn import DrawnSmear, send_case
from tests.portal.factories import Network, add_waiting_node, staffed

STATIC = Path(portal.__file__).parent / "static"
TEMPLATES = Path(portal.__file__).parent / "templates"


def test_vendored_files_are_the_ones_that_were_taken() -> None:
    lines = (STATIC / "vendor" / "CHECKSUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    present = {
        str(path.relative_to(STATIC / "vendor")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").rglob("*")
        if path.is_file() and path.name not in {"CHECKSUMS", "README.md"}
    }
    assert present == listed


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_template_has_no_inline_script_or_style(template: Path) -> None:
    text = template.read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on|js:|<script>", text)


def test_browsers_spell_check_nothing_that_is_typed(reader: Browser, network: Network) -> None:
    """It is off for the whole page, and neither a template nor a script turns it on again for a part."""
    for path in ("/worklist", f"/cases/{network.cases[0]}", "/nowhere"):
        assert re.findall(r"<body[^>]* spellcheck=\"(\w+)\"", reader.get(path).text) == ["false"], path
    sources = [*TEMPLATES.rglob("*.html"), *(STATIC / "js").rglob("*.js")]
    assert [one.name for one in sources if re.search("spellcheck", one.read_text(), re.IGNORECASE)] == ["base.html"]
    bodies = [one.name for one in TEMPLATES.rglob("*.html") if "<body" in one.read_text()]
    assert bodies == ["base.html"]


@pytest.mark.parametrize("path", ["/login", "/worklist", "/static/css/app.css", "/nowhere"])
def test_every_answer_carries_the_security_headers(reader: Browser, path: str) -> None:
    answer = reader.get(path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_inner_error_tells_nothing_and_carries_the_headers_too(network: Network) -> None:
    with network.centre.runtime.database.session() as session:
        session.connection().execute(text("ALTER TABLE user_session RENAME TO lost"))
    with TestClient(create_app(network.centre.runtime), raise_server_exceptions=False) as client:
        client.cookies.set(SESSION_COOKIE, "secret-token")
        answer = client.get("/worklist")
    assert answer.status_code == 500
    assert not any(word in answer.text for word in ("user_session", "secret-token"))
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize("username", ["reader", "coordinator", "auditor", "admin"])
def test_start_page_is_the_first_of_the_menu(visitor: Browser, username: str) -> None:
    target = visitor.sign_in(username).get("/").headers["location"]
    assert visitor.get(target).status_code == 200


def test_every_page_stands_in_an_empty_centre(tmp_path: Path) -> None:
    empty = staffed(tmp_path)
    with TestClient(create_app(empty.centre.runtime), follow_redirects=False) as client:
        browser = Browser(client).sign_in("admin")
        pages = {path: browser.get(path) for path in ("/worklist", "/reports", "/rounds", "/nodes", "/models")}
    assert {path: answer.status_code for path, answer in pages.items()} == dict.fromkeys(pages, 200)
    assert all('class="empty"' in answer.text for answer in pages.values())
    empty.centre.runtime.database.dispose()


def test_worklist_search_without_a_hit_says_so(reader: Browser) -> None:
    assert "No case fits these filters" in reader.get("/worklist?search=nothing-like-it").text


def test_expired_session_is_told_to_a_part(visitor: Browser) -> None:
    answer = visitor.get("/worklist", **{"X-Part": "true"})
    assert (answer.status_code, answer.text) == (401, "")


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/cases/HV-00000000", 404), ("/people", 403)])
def test_errors_are_pages_for_people(reader: Browser, path: str, status: int) -> None:
    answer = reader.get(path)
    assert answer.status_code == status
    assert "Go to the start page" in answer.text


def test_errors_are_json_for_scripts(reader: Browser) -> None:
    answer = reader.get("/cases/HV-00000000", Accept="application/json")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_broken_view_shows_no_inner_detail(reader: Browser, network: Network) -> None:
    network.centre.store.delete(f"cases/a/{network.cases[0]}/key.json")
    answer = reader.get(f"/cases/{network.cases[0]}/blobs/cell-c1.png")
    assert answer.status_code >= 400
    assert "Traceback" not in answer.text


def test_reading_claims_changes_undoes_and_signs(reader: Browser, network: Network) -> None:
    case = network.cases[0]
    assert reader.post(f"/cases/{case}/claim").headers["location"] == f"/cases/{case}"
    first = reader.get(f"/cases/{case}.json").json()["cells"][0]
    change: dict[str, str | list[str]] = {
        "cell_id": [first["cell_id"]],
        "label": "monocyte",
        "idempotency_key": "k" * 16,
    }
    answers = [reader.post(f"/cases/{case}/cells", change).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["cells"][0]["current_class"] == "monocyte"
    undone = reader.post(f"/cases/{case}/undo", {"idempotency_key": "u" * 16}).json()
    assert undone["cells"][0]["current_class"] == first["current_class"]
    cells = reader.get(f"/cases/{case}.json").json()["cells"]
    doubtful = [cell["cell_id"] for cell in cells if cell["doubtful"]]
    reader.post(f"/cases/{case}/accept", {"cell_id": doubtful, "idempotency_key": "a" * 16})
    left = reader.post(f"/cases/{case}/seen", {"group": sorted({cell["current_class"] for cell in cells})}).json()
    assert left == {"doubtful": [], "unseen": []}
    page = reader.get(f"/cases/{case}").text
    shown = re.findall(r'name="shown" value="([^"]*)"', page)
    assert shown == [flag["shown"] for flag in reader.get(f"/cases/{case}.json").json()["flags"]]
    form: dict[str, str | list[str]] = {
        "case_version": hidden(page, "case_version"),
        "idempotency_key": "s" * 16,
        "impression": "Left shift.",
        "flag": ["immature.granulocytes", "too_few_cells"],
        "shown": shown,
        "dismissed": ["too_few_cells"],
        "reason": ["", "The smear is representative."],
    }
    wrong = reader.post(f"/cases/{case}/sign", {**form, "password": "wrong"}, Accept="application/json")
    assert wrong.status_code == 401
    signed = reader.post(f"/cases/{case}/sign", {**form, "password": PASSWORD}, Accept="application/json")
    page = reader.get(signed.json()["location"]).text
    assert "Left shift." in page
    assert "dismissed: The smear is representative." in page
    again = reader.post(f"/cases/{case}/sign", {**form, "password": PASSWORD}, Accept="application/json")
    assert again.json() == signed.json()
    other = {**form, "impression": "Nothing of note.", "password": PASSWORD}
    assert reader.post(f"/cases/{case}/sign", other, Accept="application/json").status_code == 409
    assert [report["case_id"] for report in reader.get("/reports.json").json()] == [case]


def test_page_signs_over_the_second_opinions_that_stand_on_it_and_no_other(reader: Browser, network: Network) -> None:
    case, first, second = network.cases[0], network.people["reader"], network.people["second"]
    reader.post(f"/cases/{case}/claim")
    with network.centre.runtime.database.session() as session:
        of = second.user_id
        given = second_opinions.ask(session, first, case, of=of, question="", hides_ai=False)
        opinions.save(session, second, case, text="Reactive.", estimate={CellClass.LYMPHOCYTE: 20.0})
    page = reader.get(f"/cases/{case}").text
    assert page.count(f'name="opinion" value="{given}"') == 2
    form: dict[str, str | list[str]] = {
        "case_version": hidden(page, "case_version"), "password": PASSWORD, "impression": "Reactive.",
        "idempotency_key": hidden(page, "idempotency_key"),
    }  # fmt: skip
    for sent in (form, {**form, "opinion": given}):
        answer = reader.post(f"/cases/{case}/sign", sent, Accept="application/json")
        assert answer.status_code == 409
        assert ("given since" in answer.text) == (sent is form)
    glass = {**form, "reason": "out_of_focus"}
    assert reader.post(f"/cases/{case}/glass", glass, Accept="application/json").status_code == 409
    assert (
        reader.post(f"/cases/{case}/glass", {**glass, "opinion": given}, Accept="application/json").status_code == 200
    )


def test_entry_that_is_nested_too_deep_is_refused_like_any_that_cannot_be_read(
    reader: Browser, network: Network
) -> None:
    case = network.cases[0]
    reader.post(f"/cases/{case}/claim")
    fields: dict[str, str | list[str]] = {"item": "grade.spherocytes", "idempotency_key": "n" * 16}
    answers = [reader.post(f"/cases/{case}/findings", {**fields, "value": value}) for value in ("[", "[" * 5000)]
    assert [answer.status_code for answer in answers] == [answers[0].status_code] * 2
    assert answers[0].status_code < 500
    assert all("could not be read" in answer.text for answer in answers)


def test_page_names_first_what_the_cells_are_drawn_with_and_every_script_once(
    reader: Browser, network: Network
) -> None:
    page = reader.get(f"/cases/{network.cases[0]}").text
    named = re.findall(r'<link rel="modulepreload"[^>]* href="/static/v-[0-9a-f]+/js/([^"]+)"', page)
    scripts = STATIC / "js"
    assert named[: len(FIRST_MODULES)] == list(FIRST_MODULES)
    assert sorted(named) == sorted(
        {*FIRST_MODULES, *(f"reading/{one.name}" for one in (scripts / "reading").glob("*.js"))}
    )
    imported = {
        os.path.normpath(scripts / name / ".." / found)
        for name in FIRST_MODULES
        for found in re.findall(r"from '([^']+)'", (scripts / name).read_text())
    }
    assert imported <= {str(scripts / name) for name in FIRST_MODULES}


def test_images_come_decrypted_and_are_not_shared(reader: Browser, network: Network) -> None:
    answer = reader.get(f"/cases/{network.cases[0]}/blobs/cell-c1.png")
    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["cache-control"].startswith("private")


def test_many_images_come_in_one_answer_as_each_would_by_itself(reader: Browser, network: Network) -> None:
    case = network.cases[0]
    names = ["cell-c2.png", "no-such.png", "cell-c1.png"]
    answer = reader.get(f"/cases/{case}/images?{urlencode({'name': names}, doseq=True)}")
    assert answer.headers["cache-control"].startswith("private")
    found, at = list[bytes](), 0
    while at < len(answer.content):
        length = int.from_bytes(answer.content[at : at + 4], "big")
        found.append(answer.content[at + 4 : at + 4 + length])
        at += 4 + length
    alone = [reader.get(f"/cases/{case}/blobs/{name}").content for name in (names[0], names[2])]
    assert found == [alone[0], b"", alone[1]]
    assert reader.get(f"/cases/{case}/images").status_code == 422
    assert reader.get(f"/cases/{case}/images?{urlencode({'name': ['x'] * 65}, doseq=True)}").status_code == 422


def test_demonstration_data_is_marked(visitor: Browser) -> None:
    assert '<span class="mark">synthetic</span>' in visitor.sign_in("coordinator").get("/models/hv-1").text


def test_coordinator_sees_census_launches_and_stops(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    page = visitor.get("/rounds").text
    assert all(name in page for name in ("St. Elisabeth Hospital", "Riverside Clinic", "University Hospital North"))
    started = visitor.post("/rounds", {"rounds": "2", "min_sites": "3"})
    address = started.headers["location"]
    assert "waits to start" in visitor.get(address).text
    assert visitor.post(f"{address}/stop").status_code == 303
    assert "Stop asked for by J. Lindqvist" in visitor.get(address).text


def test_stream_of_a_finished_run_tells_its_log_and_ends(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    run = network.runs[0]
    text = visitor.get(f"/rounds/{run}/events").text
    ids = [int(found) for found in re.findall(r"^id: (\d+)", text, re.MULTILINE)]
    assert text.rstrip().endswith("data: {}")
    assert ids == sorted(ids)
    resumed = visitor.get(f"/rounds/{run}/events", **{"Last-Event-ID": str(ids[-2])}).text
    assert re.findall(r"^id: (\d+)", resumed, re.MULTILINE) == [str(ids[-1])]


def test_promotion_from_the_card(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    assert visitor.post("/models/hv-1/promote", {"override_reason": "First model"}).status_code == 303
    assert "The model in use" in visitor.get("/models/hv-1").text
    assert visitor.get("/models/hv-1.json").json()["state"] == "current"


def test_waiting_node_is_approved_by_its_fingerprint(visitor: Browser, network: Network) -> None:
    add_waiting_node(network)
    visitor.sign_in("coordinator")
    assert "3f2a-91bc-04de-77a1-c0ff-5e12-8b6d-20f9" in visitor.get("/nodes").text
    visitor.post("/nodes/node-d/approve")
    states = {node["hospital_id"]: node["state"] for node in visitor.get("/nodes.json").json()}
    assert states["d"] == "approved"


def test_admin_adds_a_person_who_can_sign_in(visitor: Browser) -> None:
    visitor.sign_in("admin")
    person = {"username": "new.reader", "display_name": "Dr. N. Ew", "role": "hematologist", "password": PASSWORD}
    assert visitor.post("/people", person).status_code == 303
    visitor.post("/logout")
    assert Browser(visitor.client).sign_in("new.reader").get("/worklist").status_code == 200


def test_audit_is_searched_by_subject(visitor: Browser, network: Network) -> None:
    visitor.sign_in("auditor")
    found = visitor.get(f"/audit?subject=run:{network.runs[0]}").text
    assert "launched the run" in found
    assert "No entry fits" in visitor.get("/audit?text=nothing-like-it").text


def test_node_api_is_beside_the_portal_in_the_demo(network: Network) -> None:
    from dataclasses import replace

    runtime = network.centre.runtime
    demo = replace(runtime, settings=runtime.settings.model_copy(update={"demo": True}))
    with TestClient(create_app(demo), follow_redirects=False) as client:
        answer = client.get("/api/node/v1/reports")
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
        assert client.get("/healthz").json() == {"status": "ok"}


def test_limits_of_a_class_are_the_nodes_own_and_of_an_older_one_what_fired(reader: Browser, network: Network) -> None:
    def told(case: str) -> dict[str, list[float]]:
        found = re.search(r'id="room-data">(.*?)</script>', reader.get(f"/cases/{case}").text, re.DOTALL)
        assert found
        limits: dict[str, list[float]] = json.loads(found[1])["limits"]
        return limits

    assert told(network.cases[0]) == {"immature_granulocyte": [2.0]}
    smear = make_smear().model_copy(update={"limits": {CellClass.LYMPHOCYTE: (15.0, 45.0)}})
    newer = send_case(network, "a", DrawnSmear(smear, {}))
    assert told(newer) == {"lymphocyte": [15.0, 45.0]}
