"""A run's page: watching it live, steering it, and what a hospital's own staff may see."""

import json
import re
import threading
import time

import pytest

from server.accounts.roles import Role
from server.federation.book import RunBook
from server.federation.privacy import Measure, RunPrivacy
from server.federation.schemas import RunView
from server.models import Run
from tests.portal.client import Browser
from tests.portal.factories import Network, play_round, start_run


def _hospital_it(network: Network, visitor: Browser) -> Browser:
    network.centre.add_person("it-a", Role.HOSPITAL_IT, "a")
    return visitor.sign_in("it-a")


def _stream(text: str) -> list[tuple[str, dict[str, object]]]:
    blocks = [block for block in re.split(r"\r?\n\r?\n", text) if "event:" in block]
    fields = [dict(line.split(": ", 1) for line in re.split(r"\r?\n", block) if ": " in line) for block in blocks]
    return [(found["event"], json.loads(found["data"])) for found in fields]


def test_run_page_says_why_an_update_was_left_out(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    play_round(network, book, 1)
    book.set_aside(1, "b", "It is farthest from the others'.", refused=False)
    page = visitor.sign_in("coordinator").get(f"/rounds/{book.run_id}").text
    assert re.search(r"replied <span[^>]*>It is farthest from the others&#39;.</span>", page)


def test_run_page_tells_what_noise_at_the_centre_has_spent(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    with network.centre.runtime.database.session() as session:
        chosen = RunPrivacy(measure=Measure.CENTRAL_DP)
        session.get_one(Run, book.run_id).privacy = chosen.model_dump(mode="json")
    for number, spent in ((1, 4.321), (2, 6.5)):
        play_round(network, book, number, central=spent)
    play_round(network, book, 3, whole=False, central=8.0)
    visitor.sign_in("coordinator")
    assert "ε 6.50 spent of every hospital so far" in visitor.get(f"/rounds/{book.run_id}").text
    run = visitor.get(f"/rounds/{book.run_id}.json").json()
    assert (run["epsilon"], [one["epsilon"] for one in run["round_views"]]) == (6.5, [4.321, 6.5, None])


def test_a_round_that_left_no_model_counts_for_nothing(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    play_round(network, book, 1)
    play_round(network, book, 2, missing="b", whole=False)
    book.fail("Too few hospitals took part.")
    visitor.sign_in("coordinator")
    row = visitor.get("/rounds").text.partition(f'href="/rounds/{book.run_id}"')[2].partition("</tr>")[0]
    assert '<td class="n nowrap">1 of 3</td>' in row
    page = visitor.get(f"/rounds/{book.run_id}").text
    assert page.count("does not count") == 1
    assert "1 of 3 rounds done" in page
    run = visitor.get(f"/rounds/{book.run_id}.json").json()
    assert (run["rounds_done"], [one["whole"] for one in run["round_views"]]) == (1, [True, False])


def test_run_page_tells_its_state_in_words_with_a_table_under_every_chart(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    play_round(network, book, 1)
    play_round(network, book, 2, open_end=True)
    page = visitor.sign_in("coordinator").get(f"/rounds/{book.run_id}").text
    assert "Round 2 of 3 · 2 of 3 hospitals replied" in page
    charts = re.findall(r'<figure class="chart.*?</figure>', page, re.DOTALL)
    assert [("<table" in chart, "<caption" in chart) for chart in charts] == [(True, True)] * 5


def test_finished_run_shows_the_matrix_with_intervals(visitor: Browser, network: Network) -> None:
    page = visitor.sign_in("coordinator").get(f"/rounds/{network.runs[0]}").text
    assert "The candidate at every hospital" in page
    assert "89.3–95.8" in page  # 242 of 260 cells
    rows = re.findall(r'<tr><th scope="row" class="nowrap">(.*?)<span.*?</tr>', page)
    assert rows == ["Candidate", "In use", "Each site’s own"]
    own = page[page.index("Each site’s own") :].partition("</tr>")[0]
    assert re.findall(r"[0-9.]+ %", own) == ["93.0 %", "90.0 %", "87.0 %"]
    assert [note in own for note in ("nothing of its own", "own view<", "own view, own head")] == [True] * 3
    assert "Stop the run" not in page


def test_finished_run_tells_what_its_last_round_came_to(visitor: Browser, network: Network) -> None:
    address = f"/rounds/{network.runs[0]}"
    page = visitor.sign_in("coordinator").get(address).text
    run = RunView.model_validate(visitor.get(f"{address}.json").json())
    assert run.after is not None
    assert {site: after.accuracy for site, after in run.after.sites.items()} == pytest.approx(
        {"a": 0.93, "b": 0.9, "c": 0.87}
    )
    assert run.after.accuracy == pytest.approx((0.93 * 220 + 0.9 * 190 + 0.87 * 160) / 570)
    newest = page[page.index('<table class="answers">') :].partition("<tbody>")[2].partition("</tbody>")[0]
    assert re.findall(r"→ ([0-9.]+ %)", newest)[::2] == ["93.0 %", "90.0 %", "87.0 %"]  # between them macro F1
    accuracy = re.search(r'id="figures-accuracy".*?</table>', page, re.DOTALL)
    assert accuracy is not None
    assert '<th scope="col" class="n">end</th>' in accuracy[0]
    assert re.findall(r"([0-9.]+ %)</td></tr>", accuracy[0]) == ["93.0 %", "90.0 %", "87.0 %", "90.3 %"]
    assert ">end<" not in page[page.index('id="figures-seconds"') :]


def test_stream_tells_each_change_while_the_run_goes_on_and_ends_with_it(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    visitor.sign_in("coordinator")

    def play() -> None:
        time.sleep(0.3)
        play_round(network, book, 1)
        time.sleep(1.3)
        book.fail("The hospitals went home.")

    player = threading.Thread(target=play)
    player.start()
    told = _stream(visitor.get(f"/rounds/{book.run_id}/events").text)
    player.join()
    runs = [data for kind, data in told if kind == "run"]
    assert [data["state"] for data in runs] == ["running", "running", "failed"]
    assert [data["rounds_done"] for data in runs] == [0, 1, 1]
    assert told[-1] == ("end", {})
    lines = [data["id"] for kind, data in told if kind == "log"]
    assert lines == sorted(set(map(int, map(str, lines))))


def test_stop_is_asked_once_and_said(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    visitor.sign_in("coordinator")
    address = f"/rounds/{book.run_id}"
    assert 'id="stop"' in visitor.get(address).text
    assert visitor.post(f"{address}/stop").headers["location"] == address
    page = visitor.get(address).text
    assert "The run stops after what is under way" in page
    assert 'data-open="stop"' not in page


@pytest.mark.parametrize(
    "path", ["/rounds", "/rounds/{run}/stop", "/rounds/{run}/pause", "/rounds/{run}/resume", "/schedules"]
)
def test_hospital_it_and_auditor_may_not_steer(visitor: Browser, network: Network, path: str) -> None:
    visitor.sign_in("auditor")
    assert visitor.post(path.format(run=network.runs[0])).status_code == 403


def test_hospital_it_sees_its_own_figures_only(visitor: Browser, network: Network) -> None:
    it = _hospital_it(network, visitor)
    run = network.runs[0]
    page = it.get(f"/rounds/{run}").text
    assert "St. Elisabeth Hospital" in page
    assert all(name not in page for name in ("Riverside Clinic", "University Hospital North"))
    texts = [line["text"] for line in it.get(f"/rounds/{run}.json").json()["events"]]
    assert any(text.startswith("a trained") for text in texts)
    assert not [text for text in texts if re.match(r"[bc][ :]", text)]
    streamed = [data["text"] for kind, data in _stream(it.get(f"/rounds/{run}/events").text) if kind == "log"]
    assert streamed == texts
    after = RunView.model_validate(it.get(f"/rounds/{run}.json").json()).after
    assert after is not None
    assert list(after.sites) == ["a"]
    assert after.accuracy == pytest.approx(0.903, abs=1e-3)  # the mean is of all


def test_unknown_run_is_a_page_for_people(visitor: Browser) -> None:
    answer = visitor.sign_in("coordinator").get("/rounds/nothing")
    assert (answer.status_code, "There is no such run." in answer.text) == (404, True)


def test_run_without_rounds_says_what_it_waits_for(visitor: Browser, network: Network) -> None:
    book: RunBook = start_run(network)
    page = visitor.sign_in("coordinator").get(f"/rounds/{book.run_id}").text
    assert "The first round has not begun" in page


def test_a_run_is_paused_resumed_and_its_page_offers_what_is_possible(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    play_round(network, book, 1)
    visitor.sign_in("coordinator")
    address = f"/rounds/{book.run_id}"
    assert visitor.post(f"{address}/pause").headers["location"] == address
    page = visitor.get(address).text
    assert "The run pauses after this round" in page
    assert "Pause after this round" not in page
    assert book.paused(1)
    page = visitor.get(address).text
    assert "The run is paused" in page
    assert "Go on with the run" in page
    assert f'href="/rounds?clone={book.run_id}#launch"' in page
    assert '<span class="state warn">paused</span>' in visitor.get("/rounds").text
    assert visitor.post(f"{address}/resume").status_code == 303
    assert RunView.model_validate(visitor.get(f"{address}.json").json()).state.value == "queued"


def test_a_run_that_evaluates_cannot_be_paused(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    visitor.sign_in("coordinator")
    assert f'action="/rounds/{book.run_id}/pause"' in visitor.get(f"/rounds/{book.run_id}").text
    book.evaluating()
    assert f'action="/rounds/{book.run_id}/pause"' not in visitor.get(f"/rounds/{book.run_id}").text
    refused = visitor.post(f"/rounds/{book.run_id}/pause", Accept="application/json")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_each_answer_tells_what_became_of_the_model_it_received(visitor: Browser, network: Network) -> None:
    book = start_run(network)
    play_round(network, book, 1)
    play_round(network, book, 2)
    page = visitor.sign_in("coordinator").get(f"/rounds/{book.run_id}").text
    table = page[page.index('<table class="answers">') :]
    rows = [
        " ".join(re.sub(r"<[^>]+>", " ", row).split()).partition("Hospital ")[2]
        for row in re.findall(r"<tr>.*?</tr>", table[: table.index("</table>")], re.DOTALL)
        if "Elisabeth" in row
    ]
    assert rows == [
        "replied 1 180 57.1 % 54.1 % 0.886 3.4 MB 3.4 MB 40 s",
        "replied 1 180 22.0 % → 57.1 % +35.1 19.0 % → 54.1 % +35.1 1.448 → 0.886 −0.562 3.4 MB 3.4 MB 39 s",
    ]
