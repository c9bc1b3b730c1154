"""What the agent says about itself, and how to know whether one runs on a home."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.budget import read_budget
from client_node.cases.glass import GlassAsked, glass_asked
from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox, Outgoing
from client_node.duty import DutyStatus
from client_node.home import NodeHome
from client_node.models.store import current_version
from shared.contracts.enrolment import LedgerTotals, NodeMode
from shared.contracts.errors import ConfigError, ConflictError
from shared.crypto.pki import write_private


class AgentStatus(BaseModel):
    """`run/status.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    at: datetime
    processes: dict[str, str]
    duties: dict[str, DutyStatus]
    superlink: str | None
    model_version: str | None
    reports_waiting: int
    attention: tuple[str, ...]


class NodeStatus(BaseModel):
    """The JSON of `status`."""

    model_config = ConfigDict(frozen=True)

    node_id: str
    hospital_id: str
    mode: NodeMode
    server_url: str
    running: bool
    agent: AgentStatus | None
    model_version: str | None
    ledger: LedgerTotals
    cases: tuple[Outgoing, ...]
    reports: tuple[str, ...]
    glass: tuple[GlassAsked, ...]
    """Slides that readers ask for."""
    privacy: str
    """What private training has spent, in a sentence."""


@contextmanager
def only_agent(home: NodeHome) -> Iterator[None]:
    """Hold the home for this agent; the lock goes with the process, however that ends.

    Raises:
        ConflictError: another agent runs on this home.
    """
    home.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(home.pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = home.pid_file.read_text().strip() or "?"
            raise ConflictError(f"This node runs already (process {pid}): stop that one first.") from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def agent_runs(home: NodeHome) -> bool:
    """Whether an agent runs on this home."""
    try:
        handle = os.open(home.pid_file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def write_status(home: NodeHome, status: AgentStatus) -> None:
    """Write `run/status.json` atomically."""
    write_private(home.status_file, status.model_dump_json().encode())


def node_status(home: NodeHome) -> NodeStatus:
    """Return how the node is, whether it runs or not."""
    config, running = home.config(), agent_runs(home)
    reports = sorted(folder.name for folder in home.reports.glob("*/") if not folder.name.startswith("."))
    return NodeStatus(
        node_id=config.node_id, hospital_id=config.hospital_id, mode=config.mode, server_url=config.server_url,
        running=running, agent=_read(home) if running else None, model_version=current_version(home),
        ledger=Ledger(home).totals(), cases=tuple(Outbox(home).all()), reports=tuple(reports),
        glass=glass_asked(home), privacy=_spent(home),
    )  # fmt: skip


def _spent(home: NodeHome) -> str:
    try:
        return read_budget(home).text()
    except ConfigError as error:
        return error.message


def _read(home: NodeHome) -> AgentStatus | None:
    try:
        return AgentStatus.model_validate_json(home.status_file.read_bytes())
    except (OSError, ValidationError):
        return None
