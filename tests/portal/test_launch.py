"""Planning a run: the census, the form and what it refuses, a plan like an earlier one, and one kept for later."""

import re

import pytest
from sqlmodel import select

from portal.views.rounds import census_columns
from server.accounts.roles import Role
from server.federation import drift, schedule
from server.federation import service as federation
from server.federation.book import RunBook
from server.federation.privacy import COSTS, SENTENCES, Measure, RunPrivacy
from server.federation.recipe import make_recipe
from server.federation.schemas import RunPlan, RunView
from server.federation.strategies.registry import StrategyName
from server.models import CaseMeasure, DryRun, Node, RunSchedule
from shared.contracts.enrolment import EnrolmentState
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import PrivacyUnit
from shared.statistics import clopper_pearson
from shared.vision import backbones
from tests.portal.client import Browser
from tests.portal.factories import Network, play_round, start_run

SELECT = re.compile(r'<select[^>]* name="(\w+)">(.*?)</select>', re.DOTALL)


def test_census_shows_every_source_of_a_hospital_once(network: Network) -> None:
    with network.centre.runtime.database.session(read_only=True) as session:
        columns = census_columns(federation.census(session, network.people["coordinator"]))
    assert [(column.site.hospital_id, column.source, column.span) for column in columns] == [
        ("a", "pbc", 1),
        ("b", "pbc", 2),
        ("b", "reports", 0),
        ("c", "bccd", 1),
    ]


def test_census_names_what_is_not_counted_yet(visitor: Browser, network: Network) -> None:
    network.centre.add_node("z", "Harbour Hospital")
    page = visitor.sign_in("coordinator").get("/rounds").text
    assert "Not counted yet: Harbour Hospital." in page


def test_census_says_how_many_cells_wait_for_their_labels_to_be_mapped(visitor: Browser, network: Network) -> None:
    """Nothing is said of hospitals that leave none out."""
    page = visitor.sign_in("coordinator").get("/rounds").text
    said = "University Hospital North leaves out 14 cells whose labels are not mapped to a class."
    assert (said in page, page.count("leaves out")) == (True, 1)


def _apart(page: str) -> list[list[str]]:
    """Return the words of the table of how far apart the hospitals lie, a list a row."""
    [table] = re.findall(r'<table class="apart">(.*?)</table>', page, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]
    cells = [re.findall(r"<(?:td|th)[^>]*>(.*?)</(?:td|th)>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in cells]


def test_census_tells_how_far_apart_the_hospitals_lie(visitor: Browser, network: Network) -> None:
    """Shares and distances are exact; a hospital's staff see their own row alone."""
    with network.centre.runtime.database.session() as session:
        figures = session.exec(select(CaseMeasure)).all()
        for row in figures:
            row.hospital_id, row.stain, row.cells, row.ood_cells = "b", "", 100, 7
        count = len(figures)
        people = network.people["coordinator"]
        apart = {one.hospital_id: one.mix for one in drift.drift(session, people, federation.census(session, people))}
    page = visitor.sign_in("coordinator").get("/rounds").text
    low, high = clopper_pearson(7 * count, 100 * count)
    mixes = {name: f"{100 * (apart[name] or 0):.0f} %" for name in "abc"}
    assert _apart(page) == [
        ["St. Elisabeth Hospital", mixes["a"], "no case came in"],
        ["Riverside Clinic", mixes["b"], "not named", f"7.0 % ({low:.1f}–{high:.1f})", str(100 * count)],
        ["University Hospital North", mixes["c"], "no case came in"],
    ]
    assert len(set(mixes.values())) > 1
    visitor.client.cookies.clear()
    network.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    assert _apart(visitor.sign_in("it-a").get("/rounds").text) == [
        ["St. Elisabeth Hospital", mixes["a"], "no case came in"]
    ]


def test_launch_form_says_what_a_privacy_measure_costs(visitor: Browser) -> None:
    page = visitor.sign_in("coordinator").get("/rounds").text
    for measure in (Measure.DP_SGD, Measure.SECURE_AGGREGATION):
        assert (
            f"{SENTENCES[measure].replace(chr(39), '&#39;')} {COSTS[measure].replace(chr(39), '&#39;')}</span>" in page
        )


def test_launch_form_carries_the_plan(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    plan: dict[str, str | list[str]] = {
        "rounds": "4",
        "min_sites": "2",
        "local_epochs": "3",
        "deadline_minutes": "7",
        "classes": ["neutrophil", "lymphocyte"],
    }
    answer = visitor.post("/rounds", plan)
    assert answer.status_code == 303
    run = RunView.model_validate(visitor.get(f"{answer.headers['location']}.json").json())
    assert (run.rounds, run.min_sites, run.local_epochs, run.classes) == (4, 2, 3, ["neutrophil", "lymphocyte"])


def test_launch_form_carries_the_strategy_and_its_own_settings_only(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    page = visitor.get("/rounds").text
    assert len(re.findall(r'name="strategy" value="\w+"', page)) == 7
    assert 'name="fedadam.tau"' in page
    assert "Needs 5 hospitals." in page
    plan: dict[str, str | list[str]] = {
        "rounds": "2",
        "strategy": "fedadam",
        "fedadam.server_learning_rate": " 0.05 ",
        "fedadam.tau": "",
        "multikrum.byzantine_sites": "9",
    }
    answer = visitor.post("/rounds", plan)
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    run = RunView.model_validate(visitor.get(f"{address}.json").json())
    assert (run.strategy, run.strategy_parameters["Server learning rate"]) == ("fedadam", 0.05)
    assert "server learning rate 0.05" in visitor.get(address).text
    visitor.client.cookies.clear()
    audit = visitor.sign_in("auditor").get(f"/audit?subject=run:{run.id}").text
    assert "strategy parameters" in audit
    assert "server learning rate 0.05" in audit


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"strategy": "multikrum", "min_sites": "5"}, "Multi-Krum needs 5 hospitals in a round; 3 have"),
        ({"strategy": "trimmed_mean", "min_sites": "2"}, "raise the least number of hospitals from 2 to 3."),
        ({"strategy": "fedprox", "fedprox.proximal_mu": "eleven"}, "Pull: Input should be a valid number"),
    ],
)
def test_launch_that_cannot_be_is_refused_with_a_sentence(
    visitor: Browser, fields: dict[str, str | list[str]], sentence: str
) -> None:
    visitor.sign_in("coordinator")
    answer = visitor.post("/rounds", fields, Accept="application/json")
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]


def test_launch_form_offers_the_recipe_and_the_run_page_tells_it(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    page = visitor.get("/rounds").text
    form = page[page.index('<form class="form launch"') :]
    offered = {name: re.findall(r'value="([^"]+)"', part) for name, part in SELECT.findall(form)}
    assert offered == {
        "backbone": list(backbones.names()),
        "augmentation": ["subtle", "mild", "strong"],
        "balance": ["sampler", "logit", "focal", "none"],
        "day": [*map(str, range(7)), "daily"],
    }
    assert {"frozen_stages", "ema", "local_normalisation"} < set(re.findall(r'<input[^>]* name="(\w+)"', form))
    chosen: dict[str, str | list[str]] = {
        "backbone": "resnet50", "frozen_stages": "0", "augmentation": "strong", "balance": "logit", "ema": " 0.9 ",
    }  # fmt: skip
    answer = visitor.post("/rounds", chosen)
    assert answer.status_code == 303
    run = RunView.model_validate(visitor.get(f"{answer.headers['location']}.json").json())
    assert (run.recipe.backbone, run.recipe.frozen_stages, run.recipe.ema) == ("resnet50", 0, 0.9)
    assert (run.recipe.augmentation.value, run.recipe.balance.value) == ("strong", "logit")
    told = visitor.get(answer.headers["location"]).text
    assert "Recipe: resnet50, strong looks, rare classes weighed in the loss" in told
    assert "<dt>Frozen stages</dt><dd>none, all learn</dd>" in told


def test_launch_form_offers_own_normalisation_off_unless_chosen(visitor: Browser, network: Network) -> None:
    """The choice outlives a dry run's form and the plan of a run like it."""
    box = re.compile(r'<input[^>]*name="local_normalisation"[^>]*>')
    visitor.sign_in("coordinator")
    assert [("checked" in found) for found in box.findall(visitor.get("/rounds").text)] == [False]
    asked = visitor.post("/dry-runs", {"rounds": "1", "local_normalisation": "true"}).headers["location"]
    with network.centre.runtime.database.session() as session:
        row = session.get_one(DryRun, asked.rpartition("/")[2])
        row.ended_at = row.created_at
    [value] = re.findall(r'name="recipe.local_normalisation" value="(\w+)"', visitor.get(asked).text)
    answer = visitor.post("/rounds", {"rounds": "1", "recipe.local_normalisation": value})
    page = visitor.get(answer.headers["location"]).text
    assert "<dt>Normalisation</dt><dd>each hospital&#39;s own</dd>" in page
    assert "rare classes drawn more often, own normalisation</summary>" in page
    run_id = answer.headers["location"].rpartition("/")[2]
    with network.centre.runtime.database.session() as session:
        federation.fail(session, run_id, "whatever")
    again = visitor.get(f"/rounds?clone={run_id}").text
    assert [("checked" in found) for found in box.findall(again)] == [True]
    assert "recipe.local_normalisation" not in again
    off = visitor.post("/rounds", {"rounds": "1"}).headers["location"]
    assert RunView.model_validate(visitor.get(f"{off}.json").json()).recipe.local_normalisation is False


def test_launch_with_empty_fields_is_what_a_launch_starts_from(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    answer = visitor.post("/rounds", {"rounds": "1", "frozen_stages": "", "ema": ""})
    run = RunView.model_validate(visitor.get(f"{answer.headers['location']}.json").json())
    assert run.recipe == make_recipe(run.classes, {})


@pytest.mark.parametrize(("field", "value"), [("ema", "2"), ("frozen_stages", "some"), ("backbone", "dragonet")])
def test_launch_with_a_wrong_recipe_names_the_field(visitor: Browser, field: str, value: str) -> None:
    visitor.sign_in("coordinator")
    answer = visitor.post("/rounds", {"rounds": "1", field: value}, Accept="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "usage")
    assert f"at {field}: " in answer.json()["message"]


def test_launch_form_offers_privacy_and_the_run_page_tells_what_is_spent(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    form = visitor.get("/rounds").text
    assert re.findall(r'name="privacy" value="([^"]+)"', form) == [
        "none", "dp-sgd", "central-dp", "secure-aggregation",
    ]  # fmt: skip
    fields = set(re.findall(r'name="((?:dp-sgd|central-dp|secure-aggregation)[.][a-z]+)"', form))
    assert fields == {f"{one}.{name}" for one in ("dp-sgd", "central-dp") for name in ("epsilon", "delta", "clip")} | {
        "dp-sgd.unit"
    }
    chosen: dict[str, str | list[str]] = {
        "privacy": "dp-sgd", "dp-sgd.epsilon": "4", "dp-sgd.delta": "", "dp-sgd.unit": "image", "balance": "sampler",
        "central-dp.epsilon": "1",
    }  # fmt: skip
    answer = visitor.post("/rounds", chosen)
    assert answer.status_code == 303
    address = answer.headers["location"]
    run = RunView.model_validate(visitor.get(f"{address}.json").json())
    assert (run.privacy.epsilon, run.privacy.delta, run.recipe.balance.value) == (4.0, 1e-5, "none")
    play_round(network, RunBook(network.centre.runtime.database, run.id), 1, epsilon=1.25)
    page = visitor.get(address).text
    assert "<dt>Privacy</dt><dd>dp-sgd (unit image, ε 4, δ 1e-05, clip 1)</dd>" in page
    assert '<th scope="col" class="n">ε spent</th>' in page
    assert page.count('<td class="n">1.25</td>') == len(network.nodes)


def test_launch_with_a_privacy_that_cannot_be_is_refused_with_a_sentence(visitor: Browser) -> None:
    visitor.sign_in("coordinator")
    for fields, sentence in (
        ({"privacy": "central-dp"}, "needs 20 of them"),
        ({"privacy": "dp-sgd", "dp-sgd.epsilon": "none"}, "epsilon: "),
        ({"privacy": "magic"}, "measure: "),
        (
            {"privacy": "secure-aggregation", "strategy": "fedavg", "fedavg.norm_limit": "5"},
            "set the largest update to 0",
        ),
        ({"privacy": "secure-aggregation", "strategy": "multikrum"}, "cannot compare hospitals"),
        ({"privacy": "secure-aggregation", "fedavg.norm_limit": "0", "min_sites": "2"}, "secure aggregation needs 3"),
    ):
        answer = visitor.post("/rounds", dict(fields), Accept="application/json")
        assert (answer.status_code, sentence in answer.json()["message"]) == (400, True)


def test_second_launch_is_refused_while_one_is_under_way(visitor: Browser, network: Network) -> None:
    start_run(network)
    visitor.sign_in("coordinator")
    answer = visitor.post("/rounds", {"rounds": "1"}, Accept="application/json")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    page = visitor.get("/rounds").text
    assert not any(way in page for way in ('action="/rounds"', 'action="/dry-runs"'))


def test_a_later_run_is_scheduled_while_one_is_under_way(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    visitor.sign_in("coordinator")
    page = visitor.get("/rounds").text
    assert re.search(r'<form class="form launch" method="post" action="/schedules"', page)
    assert 'Watch the run under way</a><a class="btn" href="#launch">Schedule a run</a>' in page
    assert "is under way: another can be launched" in page
    assert visitor.post("/schedules", {"rounds": "4", "day": "6", "at": "02:00"}).status_code == 303
    assert "Every Sunday at 02:00 UTC" in visitor.get("/rounds").text
    book.fail("It ends.")
    assert 'action="/rounds"' in visitor.get("/rounds").text


def test_clone_fills_the_form_with_the_whole_plan(visitor: Browser, network: Network) -> None:
    plan = RunPlan(
        rounds=7,
        recipe={"batch_size": 16, "ema": 0.5, "balance": "focal"},
        classes=[CellClass.LYMPHOCYTE, CellClass.MONOCYTE],
        strategy=StrategyName.FEDADAM,
        strategy_parameters={"tau": 0.01},
        round_deadline_seconds=1200,
    )
    with network.centre.runtime.database.session() as session:
        run_id = federation.start_run(session, network.people["coordinator"], plan)
        federation.fail(session, run_id, "whatever")
    visitor.sign_in("coordinator")
    page = visitor.get(f"/rounds?clone={run_id}").text
    form = page[page.index('<form class="form launch"') :]
    form = form[: form.index("</form>")]
    values = dict(re.findall(r'<input[^>]* name="([\w.]+)"[^>]* value="([^"]*)"', form))
    assert {
        name: values[name] for name in ("rounds", "deadline_minutes", "ema", "recipe.batch_size", "fedadam.tau")
    } == {
        "rounds": "7",
        "deadline_minutes": "20",
        "ema": "0.5",
        "recipe.batch_size": "16",
        "fedadam.tau": "0.01",
    }
    assert re.findall(r'value="(\w+)" checked', form) == ["lymphocyte", "monocyte", "fedadam", "none"]
    assert '<option value="focal" selected>' in form
    sent = visitor.post("/rounds", {"recipe.batch_size": "16", "balance": "focal", "recipe.seed": ""})
    run = RunView.model_validate(visitor.get(f"{sent.headers['location']}.json").json())
    assert (run.recipe.batch_size, run.recipe.balance.value, run.recipe.seed) == (16, "focal", 0)


def test_chosen_hospitals_and_an_odd_deadline_outlive_dry_run_clone_and_schedule(
    visitor: Browser, network: Network
) -> None:
    boxes = re.compile(r'<input type="checkbox" name="sites" value="(\w+)"( checked)?>')
    visitor.sign_in("coordinator")
    assert boxes.findall(visitor.get("/rounds").text) == [("a", ""), ("b", ""), ("c", "")]
    fields: dict[str, str | list[str]] = {"rounds": "1", "sites": ["a", "b"], "deadline_minutes": "1.5"}
    wrong = visitor.post("/rounds", {**fields, "sites": ["a", "moon"]}, Accept="application/json")
    assert (wrong.status_code, "No hospital moon can be asked" in wrong.json()["message"]) == (400, True)
    asked = visitor.post("/dry-runs", fields).headers["location"]
    with network.centre.runtime.database.session() as session:
        row = session.get_one(DryRun, asked.rpartition("/")[2])
        row.ended_at = row.created_at
    page = visitor.get(asked).text
    assert "0 of 2 would train" in page
    hidden = re.findall(r'<input type="hidden" name="(sites|deadline_minutes)" value="([^"]+)"', page)
    assert hidden == [("deadline_minutes", "1.5"), ("sites", "a"), ("sites", "b")]
    address = visitor.post("/rounds", fields).headers["location"]
    assert "<dt>Asked</dt><dd>St. Elisabeth Hospital and Riverside Clinic</dd>" in visitor.get(address).text
    assert visitor.post("/schedules", {**fields, "day": "6", "at": "02:00"}).status_code == 303
    assert "asks a and b" in visitor.get("/rounds").text
    run_id = address.rpartition("/")[2]
    with network.centre.runtime.database.session() as session:
        federation.fail(session, run_id, "whatever")
        session.get_one(Node, network.nodes["b"].node_id).state = EnrolmentState.REVOKED
    again = visitor.get(f"/rounds?clone={run_id}").text
    assert boxes.findall(again) == [("a", " checked"), ("c", ""), ("b", " checked")]
    assert "Riverside Clinic (no approved node)" in again
    assert re.search(r'name="deadline_minutes"[^>]* value="1.5"', again)


def test_clone_keeps_the_privacy_of_the_run(visitor: Browser, network: Network) -> None:
    chosen = RunPrivacy(measure=Measure.DP_SGD, epsilon=3.0, unit=PrivacyUnit.IMAGE)
    plan = RunPlan(classes=[CellClass.LYMPHOCYTE, CellClass.MONOCYTE], privacy=chosen)
    with network.centre.runtime.database.session() as session:
        run_id = federation.start_run(session, network.people["coordinator"], plan)
        federation.fail(session, run_id, "whatever")
    visitor.sign_in("coordinator")
    page = visitor.get(f"/rounds?clone={run_id}").text
    assert re.search(r'name="privacy" value="dp-sgd" checked', page)
    assert not re.search(r'name="privacy" value="none" checked', page)
    assert re.search(r'name="dp-sgd.epsilon"[^>]* value="3"', page)


def test_a_plan_is_kept_as_a_schedule_shown_and_removed(visitor: Browser, network: Network) -> None:
    visitor.sign_in("coordinator")
    fields: dict[str, str | list[str]] = {"rounds": "4", "day": "6", "at": "02:00", "least_labels": "200"}
    assert visitor.post("/schedules", fields).headers["location"] == "/rounds#schedules"
    page = visitor.get("/rounds").text
    assert "Every Sunday at 02:00 UTC" in page
    assert "0 labels are new since the last completed run" in page  # it has learnt from them all
    with network.centre.runtime.database.session() as session:
        [row] = schedule.view(session, network.people["coordinator"])
        assert (row.plan and row.plan.rounds, row.least_labels, row.created_by) == (4, 200, "coordinator")
    wrong = visitor.post("/schedules", {**fields, "at": "soon"}, Accept="application/json")
    assert (wrong.status_code, wrong.json()["message"]) == (400, "Give the time as HH:MM.")
    with network.centre.runtime.database.session() as session:
        session.get_one(RunSchedule, row.id).plan = {"rounds": "of another version"}
    assert "A plan that this version cannot read" in visitor.get("/rounds").text
    visitor.post(f"/schedules/{row.id}/remove")
    assert "Every Sunday" not in visitor.get("/rounds").text
