"""Sees to it that a request's base weights are here: the agent fetches what is missing, and here it is verified."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from client_node.bases import BaseBox
from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.policy import Policy, subject_of
from client_node.status import agent_runs
from shared.contracts.errors import ConfigError, NotFoundError, ServiceUnavailableError, WeightsMissingError
from shared.contracts.training import DryRunRequest, EvaluateRequest, TrainRequest
from shared.space import space_guard
from shared.vision import backbones
from shared.vision.weights import add_base, base_sha256

WAIT_SECONDS: Final = 300.0
"""So long a round waits for its base; a question before a launch only `ASKED_SECONDS`."""
ASKED_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.2
_ONE: Final = threading.Lock()
"""A question and a round at once fetch once."""

NeedsBase = TrainRequest | EvaluateRequest | DryRunRequest
log = structlog.get_logger(__name__)


def ensure_base(home: Path, policy: Policy, request: NeedsBase, *, stopping: Callable[[], bool]) -> None:
    """Return once this node has pretrained weights of the request's backbone; others than it names are left alone.

    Raises:
        PolicyRefusedError: the hospital does not let them be fetched.
        WeightsMissingError: no agent runs that could fetch them.
        NotFoundError: the centre does not have them, or they may not come in.
        ModelInvalidError: what came has another hash; nothing was kept.
        ServiceUnavailableError: they have not come in time; the agent goes on fetching.
    """
    end = time.monotonic() + (ASKED_SECONDS if isinstance(request, DryRunRequest) else WAIT_SECONDS)
    if _is_here(request):
        return
    if not _ONE.acquire(timeout=max(0.0, end - time.monotonic())):
        raise _not_yet(request)
    try:
        if not _is_here(request):
            policy.check_fetch(request)
            _take(home, request, _come(home, request, end, stopping))
    finally:
        _ONE.release()


def _is_here(request: NeedsBase) -> bool:
    try:
        base_sha256(backbones.get(request.recipe.backbone))
    except WeightsMissingError:
        return False
    return True


def _come(home: Path, request: NeedsBase, end: float, stopping: Callable[[], bool]) -> Path:
    """Return the file that the agent has fetched."""
    box = BaseBox(home, request.base_sha256)
    if box.file.is_file():  # it came after an earlier request had given up
        return box.file
    if not agent_runs(NodeHome(home)):
        base_sha256(backbones.get(request.recipe.backbone))  # raises what says how to add them
    box.wish()
    log.info("training.base_wished", backbone=request.recipe.backbone, base=request.base_sha256)
    while time.monotonic() < end and not stopping():
        if box.file.is_file():
            return box.file
        if (reason := box.refused()) is not None:
            raise NotFoundError(
                f"This node has no pretrained weights of {request.recipe.backbone} and did not get the centre's: "
                f"{reason} Its staff can add them (`hematovision-node weights add`)."
            )
        time.sleep(_LOOK_SECONDS)
    raise _not_yet(request)


def _take(home: Path, request: NeedsBase, file: Path) -> None:
    """Verify what came, keep it where `weights add` keeps such files, and write that into the ledger."""
    size = file.stat().st_size
    try:
        with space_guard(home):
            add_base(backbones.get(request.recipe.backbone), file, request.base_sha256)
    except OSError as error:
        raise ConfigError("The installation's weights folder cannot be written: check HEMATOVISION_WEIGHTS.") from error
    finally:
        file.unlink(missing_ok=True)
    note = f"{size} bytes of pretrained weights came in from the centre; nothing left"
    Ledger(home).record(
        kind="base", subject=subject_of(request), what=request.recipe.backbone, size=0, sha256=request.base_sha256,
        note=note,
    )  # fmt: skip
    log.info("training.base_added", backbone=request.recipe.backbone, base=request.base_sha256)


def _not_yet(request: NeedsBase) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"This node is fetching the pretrained weights of {request.recipe.backbone} from the centre: ask again in a "
        "few minutes."
    )
