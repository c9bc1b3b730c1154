"""A node that is silent though its processes live: what is started again, and when."""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from client_node import ipc
from client_node.keeper import Keeper
from client_node.silence import TrainerPulse, heard, seconds_since_heard, why_restart
from shared.contracts.enrolment import HeartbeatReply
from shared.processes import Service

NEVER = float("inf")


def _reply(*, lost: float | None = None, asked: float | None = None) -> HeartbeatReply:
    return HeartbeatReply(current_model=None, reports_waiting=0, superlink=None, lost_seconds=lost, asked_seconds=asked)


@pytest.mark.parametrize(
    ("reply", "up", "heard_ago", "idle", "why"),
    [
        (_reply(), 1e6, NEVER, 1e6, None),
        (_reply(lost=46), 91, NEVER, 31, "not heard this node's SuperNode for 46 s"),
        (_reply(lost=46), 89, NEVER, 31, None),  # refused for a while after its start
        (_reply(lost=44), 91, NEVER, 31, None),
        (_reply(lost=46), 91, 20, 0, None),  # training: the line may come back before the answer is ready
        (_reply(lost=601), 91, 20, 0, "not heard"),
        (_reply(asked=121), 500, NEVER, 500, "asked 121 s ago, and nothing has arrived"),
        (_reply(asked=119), 500, NEVER, 500, None),
        (_reply(asked=200), 500, 190, 20, None),  # it arrived and is being trained
        (_reply(asked=301), 500, 290, 301, "awaits an answer for 301 s"),
        (_reply(asked=301), 500, 290, 200, None),  # trained until 200 s ago: the answer may be on its way
    ],
)
def test_a_supernode_is_started_again_when_the_centre_and_this_node_disagree(
    reply: HeartbeatReply, up: float, heard_ago: float, idle: float, why: str | None
) -> None:
    found = why_restart(reply, up=up, heard_ago=heard_ago, idle=idle)
    assert (found is None) if why is None else (why in (found or ""))


def test_what_reached_the_relay_is_marked(tmp_path: Path) -> None:
    assert seconds_since_heard(tmp_path) == NEVER
    heard(tmp_path)
    assert seconds_since_heard(tmp_path) < 5
    long_ago = time.time() - 100
    os.utime(tmp_path / "run" / "asked", (long_ago, long_ago))
    assert 99 < seconds_since_heard(tmp_path) < 105


def test_pulse_knows_a_busy_an_idle_and_a_hanging_trainer(tmp_path: Path) -> None:
    busy = True
    stop = ipc.Stop()
    serving = threading.Thread(
        target=ipc.serve,
        args=(ipc.socket_path(tmp_path, "trainer"), lambda _header, _body: ({"ok": True, "busy": busy}, b"")),
        kwargs={"stop": stop},
    )
    serving.start()
    try:
        end = time.monotonic() + 10
        while not ipc.socket_path(tmp_path, "trainer").exists() and time.monotonic() < end:
            time.sleep(0.02)
        pulse = TrainerPulse(tmp_path, idle_since=time.monotonic() - 100)
        pulse.beat()
        assert pulse.idle_seconds < 5
        pulse.idle_since, busy = time.monotonic() - 100, False
        pulse.beat()
        assert pulse.idle_seconds > 99
    finally:
        stop.set()
        serving.join()
        stop.close()
    for _ in range(3):
        assert not pulse.hangs
        pulse.beat()
    assert pulse.hangs


def test_what_a_trainer_did_not_answer_says_nothing_of_its_successor(tmp_path: Path) -> None:
    started = [1.0]
    pulse = TrainerPulse(tmp_path, which=lambda: started.pop(0) if len(started) > 1 else started[0])
    for _ in range(3):
        pulse.beat()
    assert pulse.hangs
    started[:] = [2.0]
    pulse.beat()
    assert pulse.unanswered == 1
    started[:] = [2.0, 3.0]  # it is another by the time that the call fails
    pulse.beat()
    assert pulse.unanswered == 1


def _sleeping(keeper: Keeper) -> psutil.Process:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for process in keeper._service.processes() if keeper._service else []:
            with suppress(psutil.NoSuchProcess):
                if process.name() == "sleep":
                    return process
        time.sleep(0.02)
    raise AssertionError("the child did not start")


def test_a_child_that_lives_but_hangs_is_ended_and_started_again(tmp_path: Path) -> None:
    keeper = Keeper(
        "sleeper", lambda: Service("sleeper", ["sleep", "60"], log_path=tmp_path / "log"), ready=lambda: True
    )
    try:
        keeper.tick()
        first = _sleeping(keeper)
        assert keeper.up_seconds > 0
        first.suspend()  # as hung as a process can be
        keeper.restart("nothing came of it")
        keeper.tick()
        assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE
        assert keeper.state == "running"
        assert keeper.problem == "sleeper was started again: nothing came of it"
    finally:
        keeper.stop()


def test_a_child_found_hanging_while_it_is_ended_does_not_cost_its_successor(tmp_path: Path) -> None:
    class Slow(Service):
        def stop(self) -> None:
            keeper.restart("it answered no call")  # as another thread finds it, before it is gone
            super().stop()

    keeper = Keeper("sleeper", lambda: Slow("sleeper", ["sleep", "60"], log_path=tmp_path / "log"), ready=lambda: True)
    try:
        keeper.tick()
        keeper.restart("it answered no call")
        keeper.tick()
        second = keeper.started
        keeper.tick()
        assert keeper.started == second
        assert keeper.up_seconds > 0
    finally:
        keeper.stop()
