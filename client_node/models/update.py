"""Decides about promoted models: verify, try, install or hold, tell the centre; and the way back.

A decision is written down before it takes effect and told to the centre afterwards, so that a node killed in between
ends up in one of the two states and the centre hears of it.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from client_node.budget import read_budget
from client_node.centre import Centre
from client_node.home import NodeHome
from client_node.models import store
from client_node.models.contract import Trial
from client_node.models.fetch import fetch_model
from client_node.policy import Policy, load_policy
from shared.contracts.enrolment import NodeMode
from shared.contracts.errors import (
    ConfigError,
    ConflictError,
    DataInvalidError,
    ExitCode,
    HematovisionError,
    ModelInvalidError,
    NotFoundError,
    ServiceUnavailableError,
    SignatureInvalidError,
    UsageError,
)
from shared.contracts.model_card import SignedModelCard
from shared.contracts.report import ModelDecision

_TRIAL_SECONDS: Final = 900
_TRY_AGAIN: Final = timedelta(hours=1)
"""A refused version is looked at again after this time: its files may have been mended."""
_ROOT: Final = Path(__file__).resolve().parents[2]
Reload = Callable[[], None]

log = structlog.get_logger(__name__)


def check_model(home: NodeHome, centre: Centre, *, reload: Reload) -> ModelDecision | None:
    """Look at the centre's current model and act; return a decision taken by this call, else None.

    ``reload`` tells the analyser that another version is current; an analyser that is not running loads it later.
    """
    _report(home, centre)
    signed = centre.current_model()
    if signed is None:
        return None
    version = signed.card.version
    if _settled(home, version):
        return None
    try:
        fetch_model(home, centre, signed)
        decision = decide(home, version)
    except (SignatureInvalidError, ModelInvalidError) as error:
        decision = _decision(version, "refused", error.message)
    with store.alone(home):
        if _settled(home, version):  # a trial takes time: a person may have decided meanwhile
            return None
        store.note(home, decision)
        if decision.decision == "installed":
            decision = _install(home, decision, reload)
        store.prune(home)
    log.info("model.decided", version=version, decision=decision.decision, reason=decision.reason)
    _report(home, centre)
    return decision


def decide(home: NodeHome, version: str) -> ModelDecision:
    """Try a version that lies here, on the site's own validation cells if any, and say what is to be done with it.

    Raises:
        ModelInvalidError: it does not run here.
    """
    policy, config = load_policy(home), home.config()
    trial = try_model(home, version, against=store.current_version(home))
    whose = "inference-only node" if config.mode is NodeMode.INFERENCE else "this node"
    lacks = (
        f"; {whose} has no normalisation of its own and runs the shared one" if trial.lacks_own_normalisation else ""
    )
    if trial.n == 0 or trial.accuracy is None:
        return _accepted(policy, version, f"{whose}: accepted on its signature, without own validation data{lacks}")
    own = f", with its own {' and '.join(part.value for part in trial.parts)}" if trial.parts else ""
    found = f"accuracy {trial.accuracy:.3f} on {trial.n} own validation cells{own}{lacks}"
    if trial.falls_by_more_than(policy.models.tolerance):
        decision = _decision(version, "held", f"{found}; the model in use has {trial.current_accuracy:.3f}")
    elif trial.no_better_than_chance:
        decision = _decision(version, "held", f"{found}: no better than chance")
    else:
        decision = _accepted(policy, version, found)
    if not policy.figures_may_leave or _hides_training(home, policy, version):
        reason = f"{decision.decision} after a trial on own validation cells; its figures stay in the hospital"
        return _decision(version, decision.decision, reason)
    return decision.model_copy(update={"accuracy": trial.accuracy, "n": trial.n})


def _hides_training(home: NodeHome, policy: Policy, version: str) -> bool:
    """Whether the figures of a trial may not be told: the site's head and normalisation come of its training cells.

    So it is where it trains with noise only, and for a version of a run in which it did; where its record or the card
    cannot be read, too.
    """
    if policy.training.least_privacy != "none":
        return True
    try:
        signed = SignedModelCard.model_validate_json((home.model(version) / store.CARD).read_bytes())
        return bool(read_budget(home).of_run(signed.card.run_key))
    except (OSError, ValidationError, ConfigError) as error:
        log.warning("model.figures_kept", version=version, reason=str(error)[:200])
        return True


def try_model(home: NodeHome, version: str, *, against: str | None) -> Trial:
    """Run the trial in a child process: the agent stays small, and a crash there is not a crash here.

    Raises:
        ModelInvalidError: the model does not run, or gives no figures.
        ServiceUnavailableError: the trial could not be finished, for no fault of the model; try again later.
    """
    argv = [sys.executable, "-m", "client_node.models.trial", "--home", str(home.path.resolve()), "--version", version]
    if against is not None and against != version:
        argv += ["--against", against]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False, cwd=_ROOT,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ServiceUnavailableError("The trial of the model took too long; it is tried again later.") from None
    if done.returncode != 0:
        log.warning("model.trial_failed", version=version, status=done.returncode, tail=done.stderr[-500:])
        if done.returncode in (ExitCode.MODEL_INVALID, ExitCode.FAILED):
            raise ModelInvalidError("The model does not run on this node.")
        raise ServiceUnavailableError("The trial of the model broke off; it is tried again later.")
    try:
        return Trial.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValidationError):
        raise ModelInvalidError("The trial of the model gave no figures.") from None


def accept(home: NodeHome, version: str) -> ModelDecision:
    """Install a version that was held or rolled back, because a person of the hospital says so.

    The agent tells the centre; whoever calls this tells the analyser to reload.

    Raises:
        NotFoundError: the version does not lie here.
        ConflictError: it was refused, or is in use already.
    """
    with store.alone(home):
        known = store.decided(home, version)
        if known is None or not store.present(home, version):
            raise NotFoundError(f"The model {version} is not on this node: see `hematovision-node status`.")
        if store.current_version(home) == version:
            raise ConflictError(f"The model {version} is in use already.")
        if known.decision.decision == "refused":
            raise ConflictError(f"The model {version} was refused: {known.decision.reason}")
        decision = _decision(version, "installed", "accepted by a person at the hospital")
        store.note(home, decision)
        store.make_current(home, version)
    return decision


def rollback(home: NodeHome) -> ModelDecision:
    """Go back to the version before; the one left behind does not come back by itself.

    The agent tells the centre; whoever calls this tells the analyser to reload.

    Raises:
        NotFoundError: there is none.
    """
    with store.alone(home):
        left, now = store.step_back(home)
        decision = _decision(left, "rolled_back", f"back to {now}, by a person at the hospital")
        store.note(home, decision)
    return decision


def _settled(home: NodeHome, version: str) -> bool:
    """Whether nothing is to be done about the centre's current version.

    A version that was installed here once and is no longer in use is not settled: the centre has gone back to it.
    """
    known = store.decided(home, version)
    if known is None:
        return False
    if known.decision.decision == "installed":
        return store.current_version(home) == version
    if known.decision.decision == "refused":
        return datetime.now(UTC) - known.at < _TRY_AGAIN
    return True


def _install(home: NodeHome, decision: ModelDecision, reload: Reload) -> ModelDecision:
    """Make a version current; where the analyser cannot load it, the one before stays and the version is refused."""
    before = store.current_version(home)
    store.make_current(home, decision.version)
    try:
        reload()
    except ModelInvalidError:
        if before is None or before == decision.version:
            raise
        store.step_back(home)
        decision = _decision(decision.version, "refused", "the analyser could not load it; the model before is in use")
        store.note(home, decision)
    except HematovisionError as error:
        log.info("model.reload_later", version=decision.version, code=error.code)
    return decision


def _accepted(policy: Policy, version: str, reason: str) -> ModelDecision:
    if policy.models.acceptance == "hold":
        return _decision(version, "held", f"{reason}; the hospital's policy asks a person")
    return _decision(version, "installed", reason)


def _decision(version: str, decision: str, reason: str) -> ModelDecision:
    return ModelDecision(version=version, decision=decision, reason=reason[:300])


def _report(home: NodeHome, centre: Centre) -> None:
    for decision in store.unreported(home):
        try:
            centre.decide(decision)
        except (NotFoundError, UsageError, DataInvalidError) as error:  # it will never take it: do not ask for ever
            log.warning("model.decision_not_taken", version=decision.version, code=error.code)
        with store.alone(home):
            known = store.decided(home, decision.version)
            if known is not None and known.decision == decision:  # a person may have decided anew meanwhile
                store.note(home, decision, reported=True)
