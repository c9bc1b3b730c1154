"""Asking the hospitals before a launch: the form, the answers as they come, and the launch of that very plan."""

import re

from server.accounts.roles import Role
from server.federation.schemas import RunView
from tests.portal.client import Browser
from tests.portal.dry_runs import NO, answer_dry_run
from tests.portal.factories import Network

PLAN: dict[str, str | list[str]] = {
    "rounds": "4",
    "min_sites": "2",
    "local_epochs": "3",
    "deadline_minutes": "7",
    "classes": ["neutrophil", "lymphocyte"],
    "strategy": "fedprox",
    "fedprox.proximal_mu": "0.2",
}


def test_answers_stand_on_a_page_from_which_that_very_plan_is_launched(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    assert 'formaction="/dry-runs"' in visitor.get("/rounds").text
    address = visitor.post("/dry-runs", PLAN).headers["location"]
    asking = visitor.get(address)
    assert (asking.headers["refresh"], "The hospitals are being asked" in asking.text) == ("2", True)
    answer_dry_run(network, address.rpartition("/")[2], "a", "b")
    page = visitor.get(address)
    assert "refresh" not in page.headers
    assert "Enough hospitals would take part" in page.text
    assert "2 of 3 would train 4 rounds now; 2 are needed." in page.text
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    fields: dict[str, str | list[str]] = {name: value for name, value in hidden if name != "classes"}
    fields["classes"] = [value for name, value in hidden if name == "classes"]
    run = RunView.model_validate(visitor.get(f"{visitor.post('/rounds', fields).headers['location']}.json").json())
    assert (run.rounds, run.min_sites, run.local_epochs, run.classes) == (4, 2, 3, ["neutrophil", "lymphocyte"])
    assert (run.strategy, 0.2 in run.strategy_parameters.values()) == ("fedprox", True)


def test_reasons_and_silence_are_told_for_each_hospital(visitor: Browser, network: Network) -> None:
    address = visitor.sign_in("coordinator").post("/dry-runs", PLAN).headers["location"]
    answer_dry_run(network, address.rpartition("/")[2], "a")
    text = visitor.get(address).text
    assert "Too few hospitals would take part" in text
    rows = re.findall(r"<tr>\s*<th scope=\"row\">.*?</tr>", text, re.DOTALL)
    assert [("yes" in row, NO in row, "has not answered" in row) for row in rows] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_hospital_it_sees_its_own_answer_and_cannot_ask(visitor: Browser, network: Network) -> None:
    address = visitor.sign_in("coordinator").post("/dry-runs", PLAN).headers["location"]
    answer_dry_run(network, address.rpartition("/")[2], "a")
    network.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    visitor.client.cookies.clear()
    visitor.sign_in("it-a")
    sites = visitor.get(f"{address}.json").json()["sites"]
    assert [site["hospital_id"] for site in sites] == ["a"]
    assert visitor.post("/dry-runs", PLAN).status_code == 403
    assert "Launch this run" not in visitor.get(address).text
