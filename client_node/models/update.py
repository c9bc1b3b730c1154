"""Decides about promoted models: verify, try, install or hold, tell the centre; and the way back."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from client_node.centre import Centre
from client_node.home import NodeHome
from client_node.models import store
from client_node.models.contract import Trial
from client_node.models.fetch import fetch_model
from client_node.policy import ModelsPolicy, load_policy
from shared.contracts.enrolment import NodeMode
from shared.contracts.errors import ModelInvalidError, NotFoundError, ServiceUnavailableError, SignatureInvalidError
from shared.contracts.report import ModelDecision

_TRIAL_SECONDS: Final = 900
_FINAL: Final = frozenset({"held", "refused", "rolled_back"})
Reload = Callable[[], None]

log = structlog.get_logger(__name__)


def check_model(home: NodeHome, centre: Centre, *, reload: Reload) -> ModelDecision | None:
    """Look at the centre's current model and act; return a decision taken by this call, else None.

    ``reload`` tells the analyser that another version is current.
    """
    _report(home, centre)
    signed = centre.current_model()
    if signed is None:
        return None
    version = signed.card.version
    known = store.decided(home, version)
    if store.current_version(home) == version and known is not None:
        return None
    if known is not None and known.decision.decision in _FINAL:
        return None
    try:
        fetch_model(home, centre, signed)
        decision = decide(home, version)
    except (SignatureInvalidError, ModelInvalidError) as error:
        decision = ModelDecision(version=version, decision="refused", reason=error.message[:300])
    if decision.decision == "installed":
        store.make_current(home, version)
        reload()
    store.note(home, decision)
    log.info("model.decided", version=version, decision=decision.decision, reason=decision.reason)
    _report(home, centre)
    return decision


def decide(home: NodeHome, version: str) -> ModelDecision:
    """Try a version on the site's own validation cells and say what is to be done with it."""
    policy, config = load_policy(home).models, home.config()
    if config.mode is NodeMode.INFERENCE:
        return _accepted(policy, version, "inference-only node: accepted on its signature, without own validation data")
    trial = try_model(home, version, against=store.current_version(home))
    if trial.n == 0 or trial.accuracy is None:
        return _accepted(policy, version, "accepted on its signature: this node has no validation data of its own")
    figures = {"accuracy": trial.accuracy, "n": trial.n}
    if trial.current_accuracy is not None and trial.accuracy < trial.current_accuracy - policy.tolerance:
        reason = (
            f"accuracy {trial.accuracy:.3f} on {trial.n} own cells; the model in use has {trial.current_accuracy:.3f}"
        )
        return ModelDecision.model_validate({"version": version, "decision": "held", "reason": reason, **figures})
    accepted = _accepted(policy, version, f"accuracy {trial.accuracy:.3f} on {trial.n} own validation cells")
    return accepted.model_copy(update=figures)


def try_model(home: NodeHome, version: str, *, against: str | None) -> Trial:
    """Run the trial in a child process: the agent stays small, and a crash there is not a crash here."""
    argv = [sys.executable, "-m", "client_node.models.trial", "--home", str(home.path), "--version", version]
    if against is not None and against != version:
        argv += ["--against", against]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False, cwd=root)
    except subprocess.TimeoutExpired:
        raise ServiceUnavailableError("The trial of the model took too long; it is tried again later.") from None
    if done.returncode != 0:
        log.warning("model.trial_failed", version=version, status=done.returncode, tail=done.stderr[-500:])
        raise ModelInvalidError("The model could not be run on this node's own validation images.")
    try:
        return Trial.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValidationError):
        raise ModelInvalidError("The trial of the model gave no figures.") from None


def accept(home: NodeHome, version: str) -> ModelDecision:
    """Install a held version because a person of the hospital says so."""
    store.make_current(home, version)
    decision = ModelDecision(version=version, decision="installed", reason="accepted by a person at the hospital")
    store.note(home, decision)
    return decision


def rollback(home: NodeHome) -> ModelDecision:
    """Go back to the version before; the one left behind does not come back by itself.

    Raises:
        NotFoundError: there is none.
    """
    now = store.current(home)
    if now is None or now.previous is None or not store.present(home, now.previous):
        raise NotFoundError("There is no earlier model on this node to go back to.")
    store.make_current(home, now.previous)
    decision = ModelDecision(version=now.version, decision="rolled_back", reason=f"back to {now.previous}, by hand")
    store.note(home, decision)
    return decision


def _accepted(policy: ModelsPolicy, version: str, reason: str) -> ModelDecision:
    if policy.acceptance == "hold":
        reason = f"{reason}; the hospital's policy asks a person"
        return ModelDecision(version=version, decision="held", reason=reason)
    return ModelDecision(version=version, decision="installed", reason=reason)


def _report(home: NodeHome, centre: Centre) -> None:
    for decision in store.unreported(home):
        try:
            centre.decide(decision)
        except NotFoundError:
            log.warning("model.decision_unknown", version=decision.version)
        store.note(home, decision, reported=True)
