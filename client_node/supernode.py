"""How a node runs its SuperNode: the command, its environment, and when to start it again.

The agent supervises the process. In Flower's ``subprocess`` isolation the SuperNode starts its own helper, which starts
the relay for each message; all of them stay in the process group that the agent stops.
"""

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from client_node.policy import load_policy
from shared.contracts.errors import ConfigError, DependencyMissingError
from shared.crypto.signing import VerifyKey

_FIRST_DELAY_SECONDS = 2.0
_LONGEST_DELAY_SECONDS = 15.0
"""A SuperNode restarted after a kill is refused (Flower's exit code 305; status 1) while the SuperLink still believes
its predecessor alive, for about 60 s: short enough a pause to be back soon after, long enough to cost nothing."""
_POLL_SECONDS = "0.2"
SUPEREXEC = "flower-superexec"
"""The SuperNode's own helper. Killed, it is not started again by the SuperNode, which then hands no message on."""
RELEASE_KEY_ID = "fpk_release"
_TRUSTED = re.compile(rf"\A{RELEASE_KEY_ID}: '(ssh-ed25519 [^'\n]+)'\n\Z")


@dataclass(frozen=True, slots=True)
class Command:
    """A program to start: arguments and the whole environment."""

    argv: list[str]
    env: dict[str, str]


def supernode_command(home: Path, *, superlink: str, hospital_id: str, port: int) -> Command:
    """Return how to start ``flower-supernode`` for the node in ``home``.

    ``superlink`` is ``host:port`` as told after approval; ``port`` is a free local port, on which Flower's own helper
    talks to the SuperNode over loopback.

    Raises:
        ConfigError: a key file is missing in the home folder, or apps would be trusted by another key than the one that
            the hospital's policy names.
        DependencyMissingError: Flower is not installed beside this Python.
    """
    keys = home / "keys"
    for name in ("flower", "ca.crt", "trusted.yaml"):
        if not (keys / name).is_file():
            raise ConfigError(f"The node's key file keys/{name} is missing: run `hematovision-node init` again.")
    _check_trusted(home)
    program = Path(sys.executable).parent / "flower-supernode"
    if not program.exists():
        raise DependencyMissingError("flower-supernode is not installed: install hematovision with its `node` extra.")
    node_config = f"hospital-id={json.dumps(hospital_id)} home={json.dumps(str(home.resolve()))}"
    argv = [
        str(program),
        "--superlink", superlink,
        "--root-certificates", str(keys / "ca.crt"),
        "--auth-supernode-private-key", str(keys / "flower"),
        "--trusted-entities", str(keys / "trusted.yaml"),
        "--node-config", node_config,
        "--isolation", "subprocess",
        "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    return Command(argv, flower_environment(home / "flower"))


def flower_environment(flwr_home: Path) -> dict[str, str]:
    """Return this process's environment, with Flower kept quiet, off the network and inside ``flwr_home``."""
    flwr_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    programs = str(Path(sys.executable).parent)
    root = str(Path(__file__).resolve().parents[1])
    return {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
        "FLWR_HOME": str(flwr_home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _POLL_SECONDS,
        "OMP_NUM_THREADS": "1",
    }


def trusted_entities(release_key_openssh: str) -> str:
    """Return the content of ``keys/trusted.yaml``: only apps signed by the centre's release key are run.

    ``release_key_openssh`` is an ``ssh-ed25519 …`` line.
    """
    line = release_key_openssh.strip()
    if not line.startswith("ssh-ed25519 ") or "'" in line or "\n" in line:
        raise ConfigError("The centre's release key is not an Ed25519 key in OpenSSH form.")
    return f"{RELEASE_KEY_ID}: '{line}'\n"


def _check_trusted(home: Path) -> None:
    """Return if Flower will run the apps of exactly one key, and that is the policy's trusted release key.

    Raises:
        ConfigError: it would run others'.
    """
    found = _TRUSTED.match((home / "keys" / "trusted.yaml").read_text())
    try:
        key = load_ssh_public_key(found[1].encode()) if found else None
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("keys/trusted.yaml must hold the centre's release key and nothing else: enrol again.")
    trusted = load_policy(home).models.trusted_release_key
    if trusted and VerifyKey(key).key_id != trusted:
        raise ConfigError("keys/trusted.yaml holds another release key than the one that policy.toml trusts: compare.")


def restart_delay(failures: int) -> float:
    """Return how many seconds to wait before starting the SuperNode again, for ever.

    ``failures`` is how often in a row it has ended within a minute of its start.
    """
    return min(_FIRST_DELAY_SECONDS * 2.0 ** min(failures, 10), _LONGEST_DELAY_SECONDS)
