"""The hospital's own policy: what it lets the centre do with its images, its machine and its cases.

Only the hospital writes `policy.toml`. The relay asks the policy before a request goes any further, the trainer asks it
again with what only it knows (how many cells there are), and once more while it trains.
"""

import tomllib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from string import Template
from typing import NoReturn

import structlog
from pydantic import PrivateAttr, ValidationError

from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.hours import in_words, is_open
from client_node.policy_sections import (
    EVERY,
    AnalysisPolicy,
    CasesPolicy,
    ModelsPolicy,
    PrivacyFloor,
    Purpose,
    Section,
    TrainingPolicy,
)
from shared.contracts.errors import ConfigError, HematovisionError, PolicyRefusedError
from shared.contracts.privacy import Privacy, PrivacyKind, PrivacyUnit
from shared.contracts.training import (
    CensusRequest,
    DryRunRequest,
    EvaluateRequest,
    Recipe,
    Request,
    TrainRequest,
)
from shared.crypto.pki import write_private

_DEFAULT = Path(__file__).with_name("policy.default.toml")
DAY = timedelta(days=1)
_MEGABYTE = 1_000_000
_UNITS: dict[PrivacyFloor, tuple[PrivacyUnit, ...]] = {
    "dp-image": (PrivacyUnit.IMAGE, PrivacyUnit.PATIENT),
    "dp-patient": (PrivacyUnit.PATIENT,),
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MachineShare:
    """How much of the machine training may take."""

    time: float
    """Of the wall clock: the trainer rests for the remainder."""
    memory: float
    """Of the GPU's memory."""


class Policy(Section):
    """All sections. The `check_` methods raise `PolicyRefusedError`; each refusal is written to the node's ledger."""

    training: TrainingPolicy = TrainingPolicy()
    models: ModelsPolicy = ModelsPolicy()
    cases: CasesPolicy = CasesPolicy()
    analysis: AnalysisPolicy = AnalysisPolicy()
    _home: NodeHome | None = PrivateAttr(default=None)

    def allows_source(self, source: str, purpose: Purpose | None = None) -> bool:
        """Whether cells of this data set may be used for ``purpose`` (None: for any); the trainer leaves out others."""
        allowed = self.purposes_of(source)
        return bool(allowed) if purpose is None else purpose in allowed

    def purposes_of(self, source: str) -> tuple[Purpose, ...]:
        """Return what this data set may be used for."""
        rules = self.training
        own = next((rule.purposes for rule in rules.dataset if rule.name == source), None)
        if own is not None:
            return tuple(purpose for purpose in own if purpose in rules.purposes)
        return rules.purposes if EVERY in rules.datasets or source in rules.datasets else ()

    @property
    def figures_may_leave(self) -> bool:
        """Whether figures over the site's own cells, whichever data set they are of, may be told to the centre."""
        rules = self.training
        return "evaluate" in rules.purposes and all("evaluate" in rule.purposes for rule in rules.dataset)

    @property
    def share(self) -> MachineShare:
        """How much of the machine training may take."""
        return MachineShare(time=self.training.gpu_share, memory=self.training.gpu_memory)

    def check_train(
        self, request: Request, examples: int | None = None, *, size: int = 0, now: datetime | None = None
    ) -> None:
        """Return if this hospital allows the request; see `why_not`.

        Raises:
            PolicyRefusedError: with the reason that the centre is told.
        """
        if (reason := self.why_not(request, examples, size=size, now=now)) is not None:
            self._refuse(subject_of(request), reason)

    def why_not(
        self, request: Request, examples: int | None = None, *, size: int = 0, now: datetime | None = None
    ) -> str | None:
        """Return why this hospital does not allow the request, or None where it does; nothing is written down.

        ``examples`` is how many of its (allowed) cells there are, None where that is not known yet; ``size`` the bytes
        of the request's tensors; ``now`` local time, for tests. A census and an evaluation are bound by purpose, not by
        hours.
        """
        rules = self.training
        purpose: Purpose = "train" if isinstance(request, DryRunRequest) else request.kind
        if not rules.enabled:
            return "This hospital's policy does not allow federated training at the moment."
        if purpose not in rules.purposes:
            return f'This hospital\'s policy does not allow the purpose "{purpose}".'
        if isinstance(request, CensusRequest):
            return None
        if request.participants < rules.least_participants:
            return f"This hospital takes part only with {rules.least_participants} hospitals or more."
        if (reason := self._why_not_model(request.recipe, size)) is not None or isinstance(request, EvaluateRequest):
            return reason
        return self._why_not_train(request, examples, now or datetime.now().astimezone())

    def _why_not_model(self, recipe: Recipe, size: int) -> str | None:
        rules = self.training
        if EVERY not in rules.backbones and recipe.backbone not in rules.backbones:
            return f"This hospital's policy does not allow the backbone {recipe.backbone}."
        if size > rules.most_megabytes * _MEGABYTE:
            return f"This hospital's policy allows {rules.most_megabytes} MB of tensors a message at most."
        return None

    def _why_not_train(self, request: TrainRequest | DryRunRequest, examples: int | None, now: datetime) -> str | None:
        rules = self.training
        rounds = max(request.rounds, request.round) if isinstance(request, TrainRequest) else request.rounds
        if request.recipe.local_epochs > rules.most_epochs:
            return f"This hospital's policy allows {rules.most_epochs} epochs a round at most."
        if rounds > rules.most_rounds:
            return f"This hospital's policy allows {rules.most_rounds} rounds a run at most."
        if (reason := self._why_not_private(request.privacy)) is not None:
            return reason
        masked = request.masked if isinstance(request, DryRunRequest) else request.masking is not None
        if rules.masked_only and not masked:
            return "This hospital trains only under secure aggregation, which hides its update from the centre."
        if examples is not None and examples < rules.least_examples:
            return f"This hospital trains only with {rules.least_examples} labelled cells or more."
        if not is_open(rules.hours, rules.days, now):
            return f"This hospital trains {in_words(rules.hours, rules.days)} only."
        return None

    def _why_not_private(self, privacy: Privacy | None) -> str | None:
        rules = self.training
        if rules.least_privacy == "none":
            return None
        asked = privacy or Privacy()
        least = f"ε ≤ {rules.most_epsilon:g} and δ ≤ {rules.most_delta:g}"
        whose = "every image" if rules.least_privacy == "dp-image" else "every patient"
        if asked.kind is not PrivacyKind.DP_SGD or asked.unit not in _UNITS[rules.least_privacy]:
            return f"This hospital trains only with differential privacy for {whose} ({least})."
        if asked.epsilon is None or asked.epsilon > rules.most_epsilon:
            return f"This hospital trains only with {least}."
        if asked.delta is None or asked.delta > rules.most_delta:
            return f"This hospital trains only with {least}."
        return None

    def check_fetch(self, request: TrainRequest | EvaluateRequest | DryRunRequest) -> None:
        """Return if base weights that this node lacks may be fetched; a question before a launch leaves no line.

        Raises:
            PolicyRefusedError: they may not.
        """
        if self.training.fetch_bases:
            return
        reason = (
            f"This node has no pretrained weights of {request.recipe.backbone}, and its hospital's policy does not let "
            "it fetch them: its staff can add them (`hematovision-node weights add`)."
        )
        if isinstance(request, DryRunRequest):
            raise PolicyRefusedError(reason)
        self._refuse(subject_of(request), reason)

    def check_update(self, request: Request, size: int) -> None:
        """Return if an answer with ``size`` bytes of tensors may leave.

        Raises:
            PolicyRefusedError: it is larger than this hospital allows.
        """
        if size > self.training.most_megabytes * _MEGABYTE:
            self._refuse(
                subject_of(request),
                f"This hospital's policy allows {self.training.most_megabytes} MB of tensors a message at most.",
            )

    def check_send(self, sent_today: int = 0, *, incoming: bool = False) -> None:
        """Return if a flagged smear may leave; ``sent_today`` counts cases of the last 24 hours.

        Raises:
            PolicyRefusedError: sending is off, or today's cases are used up.
        """
        if not self.cases.send_flagged or (incoming and not self.cases.send_incoming):
            self._refuse("case", "The hospital's policy does not allow sending cases: see [cases] in policy.toml.")
        if sent_today >= self.cases.most_per_day:
            self._refuse("case", f"The hospital's policy allows {self.cases.most_per_day} cases a day at most.")

    def check_more(self, case_id: str, *, wanted: int, sent_more: int) -> None:
        """Return if further fields of a smear may leave; ``sent_more`` white cells of it have left later already.

        Raises:
            PolicyRefusedError: with the reason that the reader is told.
        """
        if not (self.cases.send_flagged and self.cases.more_fields):
            self._refuse(case_id, "The hospital's policy does not allow sending more fields of a smear.")
        if sent_more + wanted > self.cases.most_more_cells:
            most = self.cases.most_more_cells
            self._refuse(case_id, f"The hospital's policy allows {most} cells more of a smear at most.")

    def record_refusal(self, request: Request, error: HematovisionError) -> None:
        """Write into the node's ledger that a request was refused for what only the trainer knows."""
        log.warning("policy.refused", subject=subject_of(request), reason=error.message)
        if self._home is not None:
            Ledger(self._home).record_refusal(subject=subject_of(request), code=error.code, reason=error.message)

    def _refuse(self, subject: str, reason: str) -> NoReturn:
        log.warning("policy.refused", subject=subject, reason=reason)
        if self._home is not None:
            Ledger(self._home).record_refusal(subject=subject, code=PolicyRefusedError.code, reason=reason)
        raise PolicyRefusedError(reason)


def subject_of(request: Request) -> str:
    """Return under which subject the ledger keeps what became of a request."""
    return request.run_key if isinstance(request, TrainRequest | EvaluateRequest) else request.kind


def load_analysis_policy(home: Path) -> AnalysisPolicy:
    """Read what the site has set for analysis; a home without a policy has defaults."""
    return load_policy(home).analysis if NodeHome(home).policy_file.exists() else AnalysisPolicy()


def load_policy(home: NodeHome | Path) -> Policy:
    """Read the policy of the node in ``home``; do so for every request, so that a change holds at once.

    Raises:
        ConfigError: the file is absent or wrong, and so nothing is allowed.
    """
    place = NodeHome(home)
    try:
        policy = Policy.model_validate(tomllib.loads(place.policy_file.read_text()))
    except FileNotFoundError:
        raise ConfigError("policy.toml is missing in the node's home, so nothing is allowed: restore it.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"policy.toml cannot be read: {error}.") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError("policy.toml cannot be read: check its permissions.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"policy.toml is wrong at {where}: {first['msg']}.") from None
    policy._home = place  # noqa: SLF001 - our own class; pydantic wants private attributes set after validation
    return policy


def write_default_policy(home: NodeHome, *, release_key: str) -> None:
    """Write the commented default policy, unless the hospital has one already."""
    if not home.policy_file.exists():
        write_private(home.policy_file, default_text(release_key).encode())


def remove_default_policy(home: NodeHome, *, release_key: str) -> None:
    """Take back what `write_default_policy` wrote; a policy that the hospital has edited stays."""
    with suppress(OSError):
        if home.policy_file.read_text() == default_text(release_key):
            home.policy_file.unlink()


def default_text(release_key: str) -> str:
    """Return the commented default policy."""
    return Template(_DEFAULT.read_text()).substitute(release_key=release_key)


def refused_sources(policy: Policy, sources: Iterable[str]) -> list[str]:
    """Return the data sets in ``sources`` that the policy keeps out, for `doctor`."""
    return sorted({source for source in sources if not policy.allows_source(source)})
