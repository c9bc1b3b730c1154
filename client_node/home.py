"""The home folder of a node: every path in it, and what `node.toml` says."""

import os
import tomllib
from datetime import datetime
from pathlib import Path

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.contracts.enrolment import NodeMode
from shared.contracts.errors import ConfigError
from shared.contracts.training import Identifier
from shared.crypto.pki import write_private

HOME_VARIABLE = "HEMATOVISION_NODE_HOME"


class NodeConfig(BaseModel):
    """The content of `node.toml`; written by `init`, and by the agent once it is told the SuperLink."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hospital_id: Identifier
    hospital_name: str
    node_id: Identifier
    mode: NodeMode = NodeMode.TRAINING
    server_url: str
    server_id: Identifier
    superlink: str | None = None
    enrolled_at: datetime


class NodeHome:
    """Paths below one node's home folder. Making an instance touches no file."""

    def __init__(self, path: "Path | str | NodeHome") -> None:
        self.path: Path = path.path if isinstance(path, NodeHome) else Path(path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"NodeHome({str(self.path)!r})"

    @property
    def config_file(self) -> Path:
        """`node.toml`; a home that has it is initialised."""
        return self.path / "node.toml"

    @property
    def policy_file(self) -> Path:
        """The hospital's policy; never changed from outside."""
        return self.path / "policy.toml"

    @property
    def keys(self) -> Path:
        """The folder of private and pinned public keys."""
        return self.path / "keys"

    @property
    def signing_key(self) -> Path:
        """Ed25519 private key: signs requests and manifests."""
        return self.keys / "signing.pem"

    @property
    def envelope_key(self) -> Path:
        """HPKE private key: reports are sealed to it."""
        return self.keys / "envelope.pem"

    @property
    def flower_key(self) -> Path:
        """EC P-384 private key for Flower's node authentication."""
        return self.keys / "flower"

    @property
    def pseudonym_key(self) -> Path:
        """Secret of the patient pseudonyms."""
        return self.keys / "pseudonym.key"

    @property
    def identity_key(self) -> Path:
        """Secret under which patients' identities rest."""
        return self.keys / "identity.key"

    @property
    def ca(self) -> Path:
        """The centre's certificate authority."""
        return self.keys / "ca.crt"

    @property
    def trusted(self) -> Path:
        """Whose Flower apps may run here."""
        return self.keys / "trusted.yaml"

    @property
    def server_keys(self) -> Path:
        """The centre's public keys, pinned from the kit."""
        return self.keys / "server_keys.json"

    @property
    def catalogue(self) -> Path:
        """Labelled cells and fields."""
        return self.path / "catalogue.sqlite"

    @property
    def images(self) -> Path:
        """Copies of imported images."""
        return self.path / "images"

    @property
    def models(self) -> Path:
        """Installed model versions."""
        return self.path / "models"

    @property
    def current_model(self) -> Path:
        """Which version analyses."""
        return self.models / "current.json"

    def model(self, version: str) -> Path:
        """The folder of one model version."""
        return self.models / _single(version)

    @property
    def training(self) -> Path:
        """Feature cache and training manifests."""
        return self.path / "training"

    @property
    def budget(self) -> Path:
        """What private training has spent."""
        return self.path / "privacy.json"

    @property
    def smears(self) -> Path:
        """Analysed smears."""
        return self.path / "smears"

    def smear(self, smear_id: str) -> Path:
        """The folder of one analysed smear."""
        return self.smears / _single(smear_id)

    @property
    def incoming(self) -> Path:
        """Where a scanner puts one folder per smear to be analysed and sent."""
        return self.path / "incoming"

    @property
    def outbox(self) -> Path:
        """Cases waiting to be sent."""
        return self.path / "outbox.sqlite"

    @property
    def parcels(self) -> Path:
        """Packed (encrypted) cases, kept until the centre has them."""
        return self.path / "outbox"

    @property
    def ledger(self) -> Path:
        """What left the building."""
        return self.path / "ledger.sqlite"

    @property
    def identities(self) -> Path:
        """Who the patients of sent cases are; encrypted, never leaves."""
        return self.path / "identities.sqlite"

    @property
    def reports(self) -> Path:
        """Returned reports."""
        return self.path / "reports"

    @property
    def run(self) -> Path:
        """Sockets, the agent's lock and status."""
        return self.path / "run"

    @property
    def pid_file(self) -> Path:
        """Locked by the running agent."""
        return self.run / "agent.pid"

    @property
    def status_file(self) -> Path:
        """What the running agent last said about itself."""
        return self.run / "status.json"

    @property
    def logs(self) -> Path:
        """Log files of the node's processes."""
        return self.path / "logs"

    @property
    def initialised(self) -> bool:
        """Whether `init` came to its end here."""
        return self.config_file.is_file()

    def config(self) -> NodeConfig:
        """Read `node.toml`.

        Raises:
            ConfigError: the home was never initialised, or the file is damaged.
        """
        try:
            return NodeConfig.model_validate(tomllib.loads(self.config_file.read_text()))
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path} is not the home of a node: run `hematovision-node init --home … --kit …` first."
            ) from None
        except (OSError, ValidationError, tomllib.TOMLDecodeError):
            raise ConfigError("node.toml cannot be read; restore it from a backup or enrol this node again.") from None

    def write_config(self, config: NodeConfig) -> None:
        """Write `node.toml` atomically, readable by its owner only."""
        content = config.model_dump(mode="json", exclude_none=True)
        write_private(self.config_file, tomli_w.dumps(content).encode())


def _single(name: str) -> str:
    """Refuse what would leave its folder; ids reach us from outside too."""
    if not name or name in (".", "..") or Path(name).name != name:
        raise ConfigError("An id holds no path separators.")
    return name
