"""People: who is listed, who may add whom, and what shutting somebody out does."""

import pytest

from server.accounts.roles import Role
from server.cases import service as cases
from server.reviews import service as reviews
from tests.factories import PASSWORD
from tests.portal.client import Browser
from tests.portal.factories import Network
from tests.reading import look_through, sign_input

NEW = {"username": "new.one", "display_name": "Dr. N. Ew", "password": PASSWORD}


def test_hospital_it_belongs_to_a_hospital(visitor: Browser) -> None:
    visitor.sign_in("admin")
    alone = visitor.post("/people", {**NEW, "role": "hospital_it"}, Accept="application/json")
    assert (alone.status_code, alone.json()["code"]) == (400, "usage")
    assert visitor.post("/people", {**NEW, "role": "hospital_it", "hospital_id": "b"}).status_code == 303
    page = visitor.get("/people").text
    row = page[page.index("Dr. N. Ew") :]
    assert row.index("Riverside Clinic") < row.index("</tr>")


def test_taken_name_is_told_beside_the_form(visitor: Browser) -> None:
    visitor.sign_in("admin")
    taken = {**NEW, "username": "reader", "role": "auditor"}
    answer = visitor.post("/people", taken, Accept="application/json")
    assert (answer.status_code, "is taken" in answer.json()["message"]) == (409, True)


def test_administrator_changes_name_role_and_hospital_and_signed_reports_keep_the_name(
    visitor: Browser, network: Network
) -> None:
    reader, case = network.people["reader"], network.cases[0]
    with network.centre.runtime.database.session() as session:
        cases.claim(session, reader, case)
        look_through(session, reader, case)
        signing = sign_input(session, reader, case, impression="Left shift.")
        report = reviews.sign(session, reader, network.centre.runtime, case, signing)
    visitor.sign_in("admin")
    page = visitor.get(f"/people/{reader.user_id}").text
    assert f'value="{reader.display_name}"' in page
    assert '<option value="hematologist" selected>' in page
    fields = {"display_name": "Dr. A. Married", "role": "hospital_it"}
    answer = visitor.post(f"/people/{reader.user_id}", fields, Accept="application/json")
    assert (answer.status_code, "belongs to a hospital" in answer.json()["message"]) == (400, True)
    assert visitor.post(f"/people/{reader.user_id}", {**fields, "hospital_id": "a"}).status_code == 303
    assert "Dr. A. Married" in visitor.get("/people").text
    told = visitor.get(f"/audit?subject=user:{reader.user_id}").text
    assert "changed name, role or hospital of the account" in told
    for path in (f"/reports/{report}", "/reports"):
        shown = visitor.get(path).text
        assert reader.display_name in shown
        assert "Dr. A. Married" not in shown


def test_nobody_changes_their_own_role(visitor: Browser, network: Network) -> None:
    visitor.sign_in("admin")
    own = network.people["admin"].user_id
    assert '<select id="c-role"' not in visitor.get(f"/people/{own}").text
    assert visitor.post(f"/people/{own}", {"display_name": "A. Dmin", "role": "auditor"}).status_code == 409
    assert visitor.post(f"/people/{own}", {"display_name": "A. Dmin", "role": "admin"}).status_code == 303
    assert "A. Dmin" in visitor.get("/people").text


def test_coordinator_sees_no_form_to_change_a_person(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    assert "Name, role and hospital" not in visitor.get(f"/people/{network.people['reader'].user_id}").text


def test_deactivated_person_is_signed_out_and_let_in_again(visitor: Browser, network: Network) -> None:
    visitor.sign_in("admin")
    reader = network.people["reader"].user_id
    assert visitor.post(f"/people/{reader}/active").status_code == 303
    assert "may not sign in" in visitor.get("/people").text
    assert "Let in again" in visitor.get(f"/people/{reader}").text
    assert visitor.post(f"/people/{reader}/active", {"active": "true"}).status_code == 303
    assert "may not sign in" not in visitor.get("/people").text


def test_coordinator_manages_everybody_but_administrators(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    page = visitor.get("/people").text
    assert '<option value="admin">' not in page
    admin, reader = network.people["admin"].user_id, network.people["reader"].user_id
    assert f"/people/{admin}" not in page
    assert f'href="/people/{reader}"' in page
    assert visitor.get(f"/people/{admin}").status_code == 403
    for act in ("sessions/end", "second-factor/reset"):
        assert visitor.post(f"/people/{admin}/{act}").status_code == 403
    assert visitor.post("/people", {**NEW, "role": "admin"}).status_code == 403
    assert visitor.post(f"/people/{network.people['admin'].user_id}/active").status_code == 403
    assert visitor.post("/people", {**NEW, "role": "hematologist"}).status_code == 303


@pytest.mark.parametrize("role", [Role.HEMATOLOGIST, Role.HOSPITAL_IT, Role.AUDITOR])
def test_other_roles_have_no_people_page(visitor: Browser, network: Network, role: Role) -> None:
    network.centre.add_person("somebody", role, "a" if role is Role.HOSPITAL_IT else None)
    visitor.sign_in("somebody")
    assert visitor.get("/people").status_code == 403
    assert visitor.post("/people", {**NEW, "role": "auditor"}).status_code == 403


def test_nobody_shuts_out_themselves(visitor: Browser, network: Network) -> None:
    visitor.sign_in("admin")
    assert visitor.post(f"/people/{network.people['admin'].user_id}/active").status_code == 409
