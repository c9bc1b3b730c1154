"""The head of a case: blood count, earlier signed cases, whom to phone; and where a hospital sets the last."""

from server.cases import service as cases
from server.cases.ingest import ingest
from server.hospitals import bedside
from server.models import Case
from server.reviews import glass
from server.reviews.schemas import GlassInput
from shared.contracts.report import GlassReason
from tests.factories import PASSWORD, centre_key, make_context, pack
from tests.portal.client import Browser
from tests.portal.factories import Network
from tests.portal.test_query_counts import asked


def _send(network: Network, hospital: str, pseudonym: str) -> str:
    parcel = pack(network.nodes[hospital], centre_key(network.centre), context=make_context(pseudonym))
    parcel.upload(network.centre.store)
    ingest(network.centre.runtime, hospital_id=hospital, case_id=parcel.case_id)
    return parcel.case_id


def _ask_for_glass(network: Network, case_id: str) -> None:
    with network.centre.runtime.database.session() as session:
        reader = network.people["reader"]
        cases.claim(session, reader, case_id)
        version = cases.case_view(session, reader, case_id).version
        asked = GlassInput(password=PASSWORD, reason=GlassReason.TOO_THICK, case_version=version)
        glass.ask(session, reader, network.centre.runtime, case_id, asked)


def test_head_tells_values_that_are_out_and_links_earlier_cases_with_what_was_signed(
    reader: Browser, network: Network
) -> None:
    first, elsewhere = _send(network, "a", "cd" * 16), _send(network, "b", "cd" * 16)
    _ask_for_glass(network, first)
    case_id = _send(network, "a", "cd" * 16)
    page = reader.get(f"/cases/{case_id}").text
    assert 'title="Hb 88 g/l, 32 below 120–150"' in page
    assert 'title="Plt 340 ×10⁹/l, within 150–410"' in page
    assert f'href="/cases/{first}"' in page
    assert "The fields lie where the smear is too thick or too thin." in page
    assert elsewhere not in page
    assert "+00 000 0000" in page


def test_head_asks_the_database_as_often_for_many_earlier_cases(reader: Browser, network: Network) -> None:
    case_id = _send(network, "a", "ef" * 16)
    counts = []
    for number in (2, 12):
        with network.centre.runtime.database.session() as session:
            row = session.get_one(Case, case_id)
            for at in range(number):
                copy = Case(**{**row.model_dump(), "id": f"HV-{number:04d}{at:04d}"})
                copy.received_at = row.received_at.replace(year=2020)
                session.add(copy)
        counts.append(asked(reader, network, f"/cases/{case_id}")[0])
    assert counts[0] == counts[1]


def test_hospital_tells_readers_whom_to_phone_and_its_limits(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    wrong = visitor.post("/hospitals/a/contact", {"phone": "call me"}, accept="application/json")
    assert (wrong.status_code, wrong.json()["message"]) == (
        400,
        "Write the telephone number in digits, as it is dialled from abroad.",
    )
    fields = {"name": "Haematology desk", "phone": "+41 44 555 01 02", "hours": "by day"}
    assert visitor.post("/hospitals/a/contact", fields).status_code == 303
    wrong = visitor.post("/hospitals/a/blood-limits", {"mcv_fl_low": "98"}, accept="application/json")
    assert wrong.json()["message"].startswith("Mean cell volume: give both limits")
    limits = {"mcv_fl_low": "92", "mcv_fl_high": "98"}
    assert visitor.post("/hospitals/a/blood-limits", limits).status_code == 303
    assert "Haematology desk" in visitor.get("/nodes/node-a").text
    with network.centre.runtime.database.session() as session:
        assert bedside.limits_of(session, "a").mcv_fl.low == 92
    visitor.client.cookies.clear()
    page = visitor.sign_in("reader").get(f"/cases/{network.cases[0]}").text
    assert "Haematology desk <strong>+41 44 555 01 02</strong>" in page
    assert 'title="MCV 91 fl, 1 below 92–98"' in page
