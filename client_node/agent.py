"""Composition root of the resident agent: torch-free; supervises the node's processes and talks to the centre."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from client_node import ipc
from client_node.bases import fetch_wished
from client_node.cases.glass import glass_asked
from client_node.cases.ledger import Ledger
from client_node.cases.more import send_more
from client_node.cases.outbox import Outbox, SendState
from client_node.cases.reports import fetch_reports
from client_node.cases.sync import Sender
from client_node.centre import Centre
from client_node.datasets.catalogue import Catalogue
from client_node.duty import Duty
from client_node.enrol import software
from client_node.home import NodeHome
from client_node.incoming import Incoming
from client_node.keeper import Keeper
from client_node.models.store import current_version
from client_node.models.update import check_model
from client_node.policy import load_policy
from client_node.silence import TrainerPulse, seconds_since_heard, why_restart
from client_node.status import AgentStatus, only_agent, write_status
from client_node.supernode import SUPEREXEC, restart_delay, supernode_command
from shared.contracts.enrolment import HEARTBEAT_PROTOCOL, Heartbeat, HeartbeatReply, NodeMode
from shared.contracts.errors import ConfigError, HematovisionError, ServiceUnavailableError
from shared.contracts.training import Census
from shared.processes import Service, free_port

POLL_VARIABLE: Final = "HEMATOVISION_NODE_POLL_SECONDS"
_DEFAULT_POLL: Final = 5.0
_TICK_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 8.0
_RELOAD_SECONDS: Final = 180.0
_RARE: Final = 12
"""Work that the heartbeat's answer wakes is done unasked only every so many polls."""
_PULSE: Final = 4
"""The trainer is asked every so many polls whether it still answers."""
_PROCESS_GRACE: Final = 5.0
_SUPERNODE_UP_SECONDS: Final = 3.0

log = structlog.get_logger(__name__)


class Agent:
    """The agent of one home. `run` returns when it was told to stop."""

    def __init__(self, home: NodeHome, *, poll: float | None = None) -> None:
        self._home = home
        self._config = home.config()
        self._poll = poll if poll is not None else poll_seconds()
        self._centre = Centre.of(home)
        self._stop = threading.Event()
        self._incoming = Incoming(home)
        self._census: Census | None = None
        self._census_mark: object = None
        self._reports_waiting = 0
        self._superlink = self._config.superlink
        self._supernode_since = 0.0
        self._keepers = self._make_keepers()
        self._pulse = TrainerPulse(home.path, which=lambda: self._keepers["trainer"].started)
        rare = self._poll * _RARE
        self._heart = Duty("heartbeat", self._poll, self._beat, longest=max(self._poll, 15.0))
        self._models = Duty("models", rare, self._check_model)
        self._reports = Duty("reports", rare, self._fetch_reports)
        self._more = Duty("more", rare, self._send_more)
        self._outbox = Duty("outbox", self._poll, self._flush)
        self._watch = Duty("incoming", self._poll, self._look)
        self._count = Duty("census", self._poll, self._post_census)
        self._feel = Duty("pulse", self._poll * _PULSE, self._feel_pulse)
        self._bases = Duty("bases", self._poll, self._fetch_bases)
        duties = (self._heart, self._models, self._reports, self._more, self._outbox, self._watch, self._count)
        self._duties = (*duties, self._feel, self._bases) if "trainer" in self._keepers else duties

    def run(self) -> None:
        """Work until `stop`; end every child process, whatever happens.

        Raises:
            ConflictError: another agent runs on this home.
        """
        with only_agent(self._home):
            log.info("agent.started", node_id=self._config.node_id, mode=self._config.mode.value)
            try:
                for duty in self._duties:
                    duty.start()
                while not self._stop.is_set():
                    for keeper in self._wanted():
                        keeper.tick()
                    with suppress(OSError):  # a full disk must not end the agent
                        write_status(self._home, self.status())
                    self._stop.wait(_TICK_SECONDS)
            finally:
                self._end()

    def stop(self) -> None:
        """Ask the agent to end; safe to call from a signal handler."""
        self._stop.set()

    def status(self) -> AgentStatus:
        """Say how this node is."""
        return AgentStatus(
            pid=os.getpid(), at=datetime.now(UTC), processes=self._processes(),
            duties={duty.name: duty.status for duty in self._duties}, superlink=self._superlink,
            model_version=current_version(self._home), reports_waiting=self._reports_waiting,
            attention=self._attention(),
        )  # fmt: skip

    def _make_keepers(self) -> dict[str, Keeper]:
        keepers = {"analyser": self._resident("analyser")}
        if self._config.mode is NodeMode.TRAINING:
            keepers["trainer"] = self._resident("trainer")
            keepers["supernode"] = Keeper(
                "supernode", self._supernode, ready=self._supernode_ready, delay=restart_delay, parts=(SUPEREXEC,)
            )
        return keepers

    def _resident(self, name: str) -> Keeper:
        socket = ipc.socket_path(self._home.path, name)
        argv = [sys.executable, "-m", f"client_node.{name}", "--home", str(self._home.path.resolve())]

        def made() -> Service:
            ipc.clear(socket)  # else it would count as serving, and as hung, while it still loads its libraries
            return self._service(name, argv, environment())

        return Keeper(name, made, ready=socket.exists)

    def _supernode(self) -> Service:
        if self._superlink is None:
            raise ConfigError("The centre has not told its SuperLink yet.")
        command = supernode_command(
            self._home.path, superlink=self._superlink, hospital_id=self._config.hospital_id, port=free_port()
        )
        self._supernode_since = time.monotonic()
        return self._service("supernode", command.argv, command.env)

    def _supernode_ready(self) -> bool:
        return time.monotonic() - self._supernode_since > _SUPERNODE_UP_SECONDS

    def _service(self, name: str, argv: list[str], env: dict[str, str]) -> Service:
        log_path = self._home.logs / f"{name}.log"
        return Service(name, argv, env=env, log_path=log_path, stop_grace=_PROCESS_GRACE)

    def _wanted(self) -> list[Keeper]:
        return [k for name, k in self._keepers.items() if name != "supernode" or self._superlink is not None]

    def _processes(self) -> dict[str, str]:
        return {"agent": "running"} | {name: keeper.state for name, keeper in self._keepers.items()}

    def _beat(self) -> None:
        beat = Heartbeat(
            software=software(), mode=self._config.mode, model_version=current_version(self._home),
            processes=self._processes(), ledger=Ledger(self._home).totals(), outbox=Outbox(self._home).waiting(),
            attention=self._attention(), protocol=HEARTBEAT_PROTOCOL,
        )  # fmt: skip
        away = bool(self._heart.status.problem)
        reply = self._centre.heartbeat(beat)
        if away:  # the centre is back, or has just approved this node: the others need not wait out their pause
            for duty in self._duties:
                if duty is not self._heart:
                    duty.wake()
        if reply.superlink and reply.superlink != self._superlink:
            self._superlink = reply.superlink
            self._home.write_config(self._home.config().model_copy(update={"superlink": reply.superlink}))
        if reply.current_model and reply.current_model != current_version(self._home):
            self._models.wake()
        if "supernode" in self._keepers:
            self._check_silence(reply)
        self._reports_waiting = reply.reports_waiting
        if reply.reports_waiting:
            self._reports.wake()
        if reply.more_waiting:
            self._more.wake()

    def _check_silence(self, reply: HeartbeatReply) -> None:
        keeper, idle = self._keepers["supernode"], self._pulse.idle_seconds
        why = why_restart(reply, up=keeper.up_seconds, heard_ago=seconds_since_heard(self._home.path), idle=idle)
        if why is not None:
            keeper.restart(why)

    def _feel_pulse(self) -> None:
        keeper = self._keepers["trainer"]
        if keeper.state != "running":
            self._pulse.unanswered = 0
            return
        self._pulse.beat()
        if self._pulse.hangs:
            keeper.restart("it answered no call")
            self._pulse.unanswered = 0

    def _check_model(self) -> None:
        decision = check_model(self._home, self._centre, reload=self._reload)
        if decision is not None:
            self._heart.wake()

    def _reload(self) -> None:
        with suppress(ServiceUnavailableError):  # an analyser that does not run loads the current model when it does
            ipc.call(ipc.socket_path(self._home.path, "analyser"), {"op": "reload"}, timeout=_RELOAD_SECONDS)

    def _fetch_reports(self) -> None:
        _, labels = fetch_reports(self._home, self._centre)
        if labels:
            self._count.wake()

    def _fetch_bases(self) -> None:
        fetch_wished(self._home, self._centre)

    def _send_more(self) -> None:
        send_more(self._home, self._centre)

    def _flush(self) -> None:
        Sender(self._home, self._centre).flush()

    def _look(self) -> None:
        if self._incoming.look():
            self._outbox.wake()

    def _post_census(self) -> None:
        heart, mark = self._heart.status, _changed_at(self._home)
        if heart.last_success_at is None or heart.problem:
            return  # not approved, or the centre is away: each attempt would stand in the ledger as sent
        if mark is None or mark == self._census_mark:
            return
        policy = load_policy(self._home)  # an unreadable policy allows nothing
        census = Catalogue(self._home.path).census(lambda source: policy.allows_source(source, "census"))
        if census != self._census and "census" in policy.training.purposes:
            self._centre.post_census(census)
        self._census, self._census_mark = census, mark

    def _attention(self) -> tuple[str, ...]:
        lines = [keeper.problem for keeper in self._wanted() if keeper.problem]
        lines += [duty.status.problem for duty in self._duties if duty.status.problem]
        with suppress(HematovisionError):
            stuck = [case for case in Outbox(self._home).all() if case.state is SendState.QUARANTINED]
            lines += [f"Case {case.case_id} stands in quarantine: {case.problem}" for case in stuck[:5]]
        with suppress(HematovisionError, OSError):
            # The case's own number only: the hospital's name of the smear stays in the hospital.
            lines += [
                f"Send the glass slide of case {one.case_id}: {one.reason}" for one in glass_asked(self._home)[:5]
            ]
        return tuple(dict.fromkeys(line[:300] for line in lines))[:20]

    def _end(self) -> None:
        log.info("agent.stopping")
        for duty in self._duties:
            duty.stop()
        with ThreadPoolExecutor(max_workers=len(self._keepers)) as pool:
            list(pool.map(Keeper.stop, self._keepers.values()))
        until = time.monotonic() + _STOP_SECONDS
        for duty in self._duties:
            duty.join(until)
        self._centre.close()
        log.info("agent.stopped")


def run_agent(home: NodeHome) -> None:
    """Run the agent of ``home`` in the foreground until SIGTERM, SIGINT or SIGHUP."""
    agent = Agent(home)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()


def poll_seconds() -> float:
    """Return how often the agent asks the centre; 5 s unless the environment says otherwise."""
    text = os.environ.get(POLL_VARIABLE, str(_DEFAULT_POLL))
    try:
        seconds = float(text)
    except ValueError:
        raise ConfigError(f"{POLL_VARIABLE} must be a number of seconds.") from None
    if not 0.1 <= seconds <= 3600:
        raise ConfigError(f"{POLL_VARIABLE} must lie between 0.1 and 3600 seconds.")
    return seconds


def environment() -> dict[str, str]:
    """Return the environment of a resident process: this one, with our packages importable."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _changed_at(home: NodeHome) -> object:
    """Return what changes whenever the catalogue or the policy does, or None while there is no catalogue."""
    marks = []
    for file in (home.catalogue, Path(f"{home.catalogue}-wal"), home.policy_file):
        with suppress(OSError):
            found = file.stat()
            marks.append((found.st_mtime_ns, found.st_size))
    return tuple(marks) if home.catalogue.exists() else None
