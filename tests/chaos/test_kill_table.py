"""Every process killed with SIGKILL in the middle of a round of one real run: it goes on, and nobody helps.

Two of a node are stopped instead (SIGSTOP): they live and are silent, and nothing but silence tells.

``HEMATOVISION_KILL_TABLE`` names a file for what happened at each kill: the table of docs/recovery.md.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pytest

from server.federation.schemas import RunView
from server.federation.states import RunState
from tests.chaos.table import LONG, write_down
from tests.chaos.world import Network, network, whole_rounds

pytestmark = [LONG, pytest.mark.chaos, pytest.mark.servers]

A = "hospital-a"
VICTIMS = {
    "relay": (A, "flwr-clientapp"),
    "trainer": (A, "client_node.trainer"),
    "SuperNode": (A, "flower-supernode"),
    "agent": (A, "client_node.cli run"),
    "ServerApp": ("superexec", "flwr-serverapp"),
    "SuperExec": ("superexec", "flower-superexec"),
    "SuperLink": ("superlink", "flower-superlink"),
    "worker": ("worker", "celery"),
    "beat": ("beat", "celery"),
    "portal": ("portal", "uvicorn"),
    "node api": ("node api", "server.cli"),
    "silent trainer": (A, "client_node.trainer"),
    "silent SuperNode": (A, "flower-supernode"),
}
_SILENT = "silent "
"""Begins the name of who is stopped and not killed."""
_ROUNDS = 2 * len(VICTIMS)
_LONGEST = 600.0
"""Seconds from a kill to the next whole round; the longest waits are Flower's 60 s, twice."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("chaos")) as running:
        running.launch(_ROUNDS)
        running.wait(lambda: bool(whole_rounds(running.view())), 600, "the first round")
        yield running


def _killed_in_mid_round(net: Network, victim: str) -> RunView | None:
    """Kill or stop the victim if hospital A is being asked at this moment and its relay has the request.

    Return the run as it stood then, or None where nothing was done.
    """
    service, words = VICTIMS[victim]
    view = net.view()
    if not view.round_views or view.round_views[-1].ended_at is not None or not net.find(A, "flwr-clientapp"):
        return None
    killed = net.find(service, words)
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP if victim.startswith(_SILENT) else signal.SIGKILL)
    return view if killed else None


@pytest.mark.parametrize("victim", list(VICTIMS))
def test_a_process_that_ends_or_falls_silent_costs_at_most_one_round(net: Network, victim: str) -> None:
    lines, log = len(net.said), len(net.agent_log(A))
    moments: list[RunView] = []

    def killed() -> bool:
        moments.extend(filter(None, [_killed_in_mid_round(net, victim)]))
        return bool(moments)

    net.wait(killed, 400, "the middle of a round")
    begin, before = time.monotonic(), moments[0]
    whole = len(whole_rounds(before))
    under_way = before.round_views[-1].round
    net.wait(lambda: len(whole_rounds(net.view())) > whole, _LONGEST, f"a whole round after the {victim}'s end")
    seconds = round(time.monotonic() - begin, 1)
    after = net.view()
    seen = {line.id for line in before.events}
    story = [line.text for line in after.events if line.id not in seen]
    starts = [text for text in story if text.startswith(f"Round {under_way} starts")]
    noticed = net.said[lines:] + net.agent_log(A)[log:]
    write_down(
        victim, seconds=seconds, round_under_way=under_way, played_again=len(starts), noticed=noticed, story=story
    )
    assert not after.state.over
    # Every round before the one under way stays as it was: only that one may have been played again.
    assert [row for row in after.round_views if row.round < under_way] == before.round_views[:-1]
    assert len(starts) <= 3
    if victim == "portal":
        _wait_for_portal(net)


def _wait_for_portal(net: Network) -> None:
    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{net.platform.url}/healthz", timeout=2).status_code == 200
        return False

    net.wait(answers, 60, "the portal's return")


def test_the_run_comes_to_a_model(net: Network) -> None:
    view, end = net.view(), time.monotonic() + _LONGEST
    while view.state.active and time.monotonic() < end:
        time.sleep(0.5)
        before, view = view.rounds_done, net.view()
        if view.rounds_done > before:
            end = time.monotonic() + _LONGEST
    assert (view.state, view.problem, view.rounds_done) == (RunState.COMPLETED, None, _ROUNDS)
    assert sorted(view.per_site) == [hospital.id for hospital in net.hospitals]
