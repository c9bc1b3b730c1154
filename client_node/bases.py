"""Base weights that a node lacks: the trainer, which has no network, wishes; the agent fetches them from the centre.

Both meet in ``H/training/bases``: ``<hash>.wish`` asks, and ``<hash>.safetensors`` or ``<hash>.refused`` (why not)
answers. What was fetched is believed only once the trainer has found the hash in it, see `client_node.training.base`.
"""

from contextlib import suppress
from pathlib import Path

import structlog

from client_node.centre import Centre
from client_node.home import NodeHome
from client_node.policy import load_policy
from shared.contracts.errors import HematovisionError, PolicyRefusedError, ServiceUnavailableError
from shared.crypto.pki import write_private
from shared.space import space_guard

_MEGABYTE = 1_000_000

log = structlog.get_logger(__name__)


class BaseBox:
    """One base's wish and its answer in the home of a node."""

    def __init__(self, home: NodeHome | Path, base_sha256: str) -> None:
        folder = NodeHome(home).training / "bases"
        self.base_sha256 = base_sha256
        self.file = folder / f"{base_sha256}.safetensors"
        self._wish = folder / f"{base_sha256}.wish"
        self._refused = folder / f"{base_sha256}.refused"

    def wish(self) -> None:
        """Ask the agent for it; an answer from before is forgotten."""
        self._wish.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._refused.unlink(missing_ok=True)
        write_private(self._wish, b"")

    def refused(self) -> str | None:
        """Return why it was not fetched, or None where there is no such answer."""
        with suppress(OSError, UnicodeDecodeError):
            return self._refused.read_text()
        return None

    def fetch(self, home: NodeHome, centre: Centre) -> None:
        """Fulfil the wish, or say why not.

        Raises:
            ServiceUnavailableError: the centre is away; the wish stays.
            NoSpaceError: the disk is full; the wish stays.
        """
        try:
            content = _fetched(home, centre, self.base_sha256)
        except ServiceUnavailableError:
            raise
        except HematovisionError as error:
            log.warning("bases.not_fetched", base=self.base_sha256, code=error.code, reason=error.message)
            write_private(self._refused, error.message.encode())
        else:
            with space_guard(home.path):
                write_private(self.file, content)
            log.info("bases.fetched", base=self.base_sha256, bytes=len(content))
        self._wish.unlink(missing_ok=True)


def _fetched(home: NodeHome, centre: Centre, base_sha256: str) -> bytes:
    rules = load_policy(home).training
    if not rules.fetch_bases:
        raise PolicyRefusedError("This hospital's policy does not let its node fetch base weights.")
    content = centre.base(base_sha256)
    if len(content) > rules.most_megabytes * _MEGABYTE:
        raise PolicyRefusedError(f"This hospital's policy allows {rules.most_megabytes} MB of tensors at most.")
    return content


def fetch_wished(home: NodeHome, centre: Centre) -> None:
    """Fetch every base that the trainer wishes for; raises as `BaseBox.fetch`."""
    for wish in sorted((home.training / "bases").glob("*.wish")):
        BaseBox(home, wish.stem).fetch(home, centre)
