"""The hospital's own policy: what it lets the centre do with its images, its machine and its cases."""

import re
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, time, timedelta
from pathlib import Path
from string import Template
from typing import Annotated, Literal, NoReturn

import structlog
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from shared.contracts.errors import ConfigError, PolicyRefusedError
from shared.contracts.training import CensusRequest, EvaluateRequest, TrainRequest
from shared.crypto.pki import write_private

_HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-(([01]\d|2[0-3]):([0-5]\d)|24:00)$")
_DEFAULT = Path(__file__).with_name("policy.default.toml")
_DAY_MINUTES = 24 * 60
DAY = timedelta(days=1)
Purpose = Literal["train", "evaluate", "census"]

log = structlog.get_logger(__name__)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainingPolicy(_Section):
    """Section `training`; see `policy.default.toml` for what each line means."""

    enabled: bool = True
    purposes: tuple[Purpose, ...] = ("train", "evaluate", "census")
    datasets: tuple[str, ...] = ("*",)
    most_epochs: int = Field(default=10, ge=1)
    most_rounds: int = Field(default=200, ge=1)
    least_participants: int = Field(default=2, ge=1)
    least_examples: int = Field(default=16, ge=1)
    hours: str = "00:00-24:00"
    tell_laboratory: bool = True

    @field_validator("hours")
    @classmethod
    def _known_hours(cls, value: str) -> str:
        if not _HOURS.match(value):
            raise ValueError('hours must read like "20:00-06:00"')
        return value


class ModelsPolicy(_Section):
    """Section `models`."""

    trusted_release_key: str = ""
    acceptance: Literal["automatic", "hold"] = "automatic"
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02


class CasesPolicy(_Section):
    """Section `cases`."""

    send_flagged: bool = True
    send_incoming: bool = True
    most_per_day: int = Field(default=500, ge=0)


class AnalysisPolicy(_Section):
    """Section `analysis`."""

    coverage: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    view_without_labels: bool = False
    slide_cells: int = Field(default=200, ge=1)
    slide_fields: int = Field(default=2000, ge=1)


class Policy(_Section):
    """All sections. The `check_` methods raise `PolicyRefusedError`; each refusal is written to the node's ledger."""

    training: TrainingPolicy = TrainingPolicy()
    models: ModelsPolicy = ModelsPolicy()
    cases: CasesPolicy = CasesPolicy()
    analysis: AnalysisPolicy = AnalysisPolicy()
    _home: NodeHome | None = PrivateAttr(default=None)

    def allows_source(self, source: str) -> bool:
        """Whether cells of this data set may be used; the trainer leaves out the others."""
        return "*" in self.training.datasets or source in self.training.datasets

    def check_train(
        self, request: TrainRequest | EvaluateRequest | CensusRequest, examples: int, *, now: datetime | None = None
    ) -> None:
        """Return if this hospital allows the request on ``examples`` of its (allowed) cells.

        ``now`` is local time and for tests. A census and an evaluation are bound by purpose, not by hours.

        Raises:
            PolicyRefusedError: with the reason that the centre is told.
        """
        rules = self.training
        subject = request.run_key if not isinstance(request, CensusRequest) else "census"
        if not rules.enabled:
            self._refuse(subject, "This hospital's policy does not allow federated training at the moment.")
        if request.kind not in rules.purposes:
            self._refuse(subject, f'This hospital\'s policy does not allow the purpose "{request.kind}".')
        if isinstance(request, CensusRequest):
            return
        if request.participants < rules.least_participants:
            self._refuse(subject, f"This hospital takes part only with {rules.least_participants} hospitals or more.")
        if isinstance(request, EvaluateRequest):
            return
        if request.recipe.local_epochs > rules.most_epochs:
            self._refuse(subject, f"This hospital's policy allows {rules.most_epochs} epochs a round at most.")
        if request.rounds > rules.most_rounds:
            self._refuse(subject, f"This hospital's policy allows {rules.most_rounds} rounds a run at most.")
        if examples < rules.least_examples:
            self._refuse(subject, f"This hospital trains only with {rules.least_examples} labelled cells or more.")
        if not within(rules.hours, (now or datetime.now().astimezone()).time()):
            self._refuse(subject, f"This hospital trains between {rules.hours} local time only.")

    def check_send(self, sent_today: int = 0, *, incoming: bool = False) -> None:
        """Return if a flagged smear may leave; ``sent_today`` counts cases of the last 24 hours.

        Raises:
            PolicyRefusedError: sending is off, or today's cases are used up.
        """
        if not self.cases.send_flagged or (incoming and not self.cases.send_incoming):
            self._refuse("case", "The hospital's policy does not allow sending cases: see [cases] in policy.toml.")
        if sent_today >= self.cases.most_per_day:
            self._refuse("case", f"The hospital's policy allows {self.cases.most_per_day} cases a day at most.")

    def _refuse(self, subject: str, reason: str) -> NoReturn:
        log.warning("policy.refused", subject=subject, reason=reason)
        if self._home is not None:
            Ledger(self._home).record(kind="refusal", subject=subject, size=0, sha256="", note=reason)
        raise PolicyRefusedError(reason)


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
        write_private(home.policy_file, _default_text(release_key).encode())


def remove_default_policy(home: NodeHome, *, release_key: str) -> None:
    """Take back what `write_default_policy` wrote; a policy that the hospital has edited stays."""
    with suppress(OSError):
        if home.policy_file.read_text() == _default_text(release_key):
            home.policy_file.unlink()


def _default_text(release_key: str) -> str:
    return Template(_DEFAULT.read_text()).substitute(release_key=release_key)


def within(hours: str, moment: time) -> bool:
    """Whether ``moment`` lies in ``HH:MM-HH:MM``; the end may be past midnight, equal ends mean all day."""
    begin, end = (_minutes(part) for part in hours.split("-"))
    now = moment.hour * 60 + moment.minute
    if begin == end % _DAY_MINUTES:
        return True
    return begin <= now < end if begin < end else now >= begin or now < end


def _minutes(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)


def refused_sources(policy: Policy, sources: Iterable[str]) -> list[str]:
    """Return the data sets in ``sources`` that the policy keeps out, for `doctor`."""
    return sorted({source for source in sources if not policy.allows_source(source)})
