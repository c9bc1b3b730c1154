"""Models: the card, the gate and its override, roll-back, and what a hospital's own staff may see."""

import re

import pytest

from server.accounts.roles import Role
from shared.contracts.privacy import ModelPrivacy, PrivacyUnit
from tests.portal.client import Browser
from tests.portal.factories import Network, play_round, promote_and_install, register_model, start_run
from tests.portal.seeds_rounds import seed_finished_run


def test_card_names_everything_that_pins_the_model(visitor: Browser) -> None:
    visitor.sign_in("reader")
    model = visitor.get("/models/hv-1.json").json()
    page = visitor.get("/models/hv-1").text
    pins = [model["sha256"], model["key_id"], *(item["sha256"] for item in model["card"]["artefacts"])]
    assert all(pin in page for pin in pins)
    assert all(word in page for word in ("Not trained for", "Intended use", "Apache-2.0", "1\u202f180 cells"))


def test_card_tells_cells_by_class_and_hospital_the_recipe_and_the_lineage(visitor: Browser) -> None:
    visitor.sign_in("reader")
    card = visitor.get("/models/hv-1.json").json()["card"]
    page = visitor.get("/models/hv-1").text
    table = page[page.index("as each hospital's census told") :]
    line = table[table.index("</span> neutrophil") :]
    row = " ".join(re.sub(r"<[^>]+>", " ", line[: line.index("</tr>")]).split())
    assert row == " ".join(["neutrophil", *(str(card["cells"][hospital]["neutrophil"]) for hospital in "abc")])
    assert "on top of the pretrained weights" in page
    assert "<dt>Weight decay</dt><dd>0.01</dd>" in page


@pytest.mark.parametrize(
    ("privacy", "told"),
    [
        (None, ""),
        (
            ModelPrivacy(measure="dp-sgd", unit=PrivacyUnit.PATIENT, epsilon=8.0, delta=1e-5),
            "Noise at the hospitals: ε at most 8 for each patient, δ 1e-05",
        ),
        (
            ModelPrivacy(measure="central-dp", unit="hospital", epsilon=6.543, delta=1e-5),
            "Noise at the centre: ε 6.54 spent of every hospital, δ 1e-05",
        ),
    ],
)
def test_card_says_what_its_noise_promises(
    visitor: Browser, network: Network, privacy: ModelPrivacy | None, told: str
) -> None:
    book = start_run(network)
    play_round(network, book, 1)
    register_model(network, book, "hv-2", privacy=privacy)
    visitor.sign_in("reader")
    page = visitor.get("/models/hv-2").text
    assert ("<dt>Privacy</dt>" in page) is (privacy is not None)
    assert told in page


def test_reader_sees_models_and_decides_nothing(visitor: Browser) -> None:
    visitor.sign_in("reader")
    assert 'action="/models' not in visitor.get("/models/hv-1").text
    assert visitor.post("/models/hv-1/promote").status_code == 403
    assert visitor.post("/models/rollback", {"reason": "x"}).status_code == 403


def test_blocked_model_needs_a_reason(visitor: Browser, network: Network) -> None:
    seed_finished_run(network, "hv-2", accuracy=0.8, before=0.9)
    visitor.sign_in("coordinator")
    page = visitor.get("/models/hv-2").text
    assert "The gate blocks this model." in page
    assert "St. Elisabeth Hospital: Accuracy falls from 90.0% to 80.0%" in page
    refused = visitor.post("/models/hv-2/promote", {"override_reason": "  "}, Accept="application/json")
    assert (refused.status_code, refused.json()["code"]) == (409, "gate_blocked")
    assert visitor.post("/models/hv-2/promote", {"override_reason": "New scanner at a"}).status_code == 303
    assert "in spite of the gate by coordinator: New scanner at a" in visitor.get("/models/hv-2").text


def test_findings_stand_by_hospital_and_class_with_what_may_be_lost(visitor: Browser, network: Network) -> None:
    seed_finished_run(network, "hv-2", accuracy=0.7, before=0.9)
    visitor.sign_in("coordinator")
    page = visitor.get("/models/hv-2").text
    table = page[page.index('<table class="gate">') :]
    rows = [
        re.sub(r"<[^>]+>", " ", row) for row in re.findall(r"<tr.*?</tr>", table[: table.index("</table>")], re.DOTALL)
    ]
    lymphocytes = next(" ".join(row.split()) for row in rows if "Elisabeth" in row and "lymphocyte" in row)
    assert lymphocytes == "St. Elisabeth Hospital recall of LY lymphocyte 93.0 % 80.9–98.5 73.0 % −20.0 2.0 % 43 blocks"


def test_rollback_brings_the_version_before_back(visitor: Browser, network: Network) -> None:
    promote_and_install(network, "hv-1")
    seed_finished_run(network, "hv-2")
    visitor.sign_in("coordinator")
    assert "Roll back" not in visitor.get("/models/hv-1").text
    visitor.post("/models/hv-2/promote")
    assert "Roll back to hv-1?" in visitor.get("/models/hv-2").text
    assert visitor.post("/models/rollback", {"reason": " "}).status_code == 400
    assert visitor.post("/models/rollback", {"reason": "Worse at b"}).headers["location"] == "/models/hv-1"
    states = {version: visitor.get(f"/models/{version}.json").json()["state"] for version in ("hv-1", "hv-2")}
    assert states == {"hv-1": "current", "hv-2": "retired"}


def test_card_tells_what_each_hospital_did(visitor: Browser, network: Network) -> None:
    promote_and_install(network, "hv-1")
    page = visitor.sign_in("coordinator").get("/models/hv-1").text
    assert "0.81 here against 0.86 of the model in use" in page


@pytest.mark.parametrize("path", ["/models/hv-2", "/models/hv-2.json"])
def test_hospital_it_sees_no_other_hospitals_findings(visitor: Browser, network: Network, path: str) -> None:
    seed_finished_run(network, "hv-2", accuracy=0.8, before=0.9)
    network.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    text = visitor.sign_in("it-a").get(path).text
    assert "Accuracy falls from 90.0% to 80.0%" in text
    assert all(other not in text for other in ("88.0%", "Riverside Clinic", "University Hospital North"))


def test_unknown_version_is_not_found(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    assert visitor.get("/models/hv-9").status_code == 404
    assert visitor.get("/models/hv-9.json").json()["code"] == "not_found"
