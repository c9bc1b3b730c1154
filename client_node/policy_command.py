"""``hematovision-node policy``: what the hospital's policy says in plain words, and whether a draft is sound."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from client_node.budget import Budget, read_budget
from client_node.datasets.catalogue import Catalogue
from client_node.home import NodeHome
from client_node.hours import in_words
from client_node.policy import Policy, load_policy
from client_node.policy_draft import Fault, check_draft, read_draft
from client_node.policy_sections import EVERY, PURPOSES, Purpose, TrainingPolicy

_MEANS: Final[dict[Purpose, str]] = {
    "train": "may change the shared model",
    "evaluate": "figures over them may leave",
    "census": "counts of their labels may leave",
}
_PRIVACY: Final = {
    "dp-image": "noise that hides every single image",
    "dp-patient": "noise that hides every single patient",
}


class PolicyShown(BaseModel):
    """The JSON of ``policy show``."""

    model_config = ConfigDict(frozen=True)

    policy: Policy
    sources: dict[str, tuple[Purpose, ...]]
    """What each data set of the catalogue may be used for."""
    words: tuple[str, ...]
    remarks: tuple[str, ...]
    spent: Budget
    """Of the privacy budget."""

    def text(self) -> str:
        """Return it for people."""
        return "\n".join([*self.words, self.spent.text(), *(f"remark: {remark}" for remark in self.remarks)])


class PolicyChecked(BaseModel):
    """The JSON of ``policy check``."""

    model_config = ConfigDict(frozen=True)

    sound: bool
    faults: tuple[Fault, ...]
    words: tuple[str, ...]
    """What the draft would mean; empty where it is not sound."""
    remarks: tuple[str, ...]

    def text(self) -> str:
        """Return it for people."""
        if not self.sound:
            return "\n".join(fault.text() for fault in self.faults)
        return "\n".join(["Sound. It would mean:", *self.words, *(f"remark: {remark}" for remark in self.remarks)])


def show_policy(home: NodeHome) -> PolicyShown:
    """Say what the policy in ``home`` allows.

    Raises:
        ConfigError: it is missing or wrong, and so nothing is allowed.
    """
    policy, sources = load_policy(home), _sources(home)
    return PolicyShown(
        policy=policy,
        sources={source: policy.purposes_of(source) for source in sources},
        words=words(policy, sources),
        remarks=remarks(policy, sources),
        spent=read_budget(home),
    )


def check_policy(file: Path, home: NodeHome | None) -> PolicyChecked:
    """Check a draft; with ``home`` also against the data sets there. Puts nothing in place.

    Raises:
        ConfigError: there is no such file.
    """
    policy, faults = check_draft(read_draft(file))
    if policy is None:
        return PolicyChecked(sound=False, faults=faults, words=(), remarks=())
    sources = _sources(home) if home is not None else []
    known = remarks(policy, sources) if home is not None else ()
    return PolicyChecked(sound=True, faults=(), words=words(policy, sources), remarks=known)


def words(policy: Policy, sources: Iterable[str]) -> tuple[str, ...]:
    """Return what a policy allows, a sentence each; ``sources`` are the data sets that there are."""
    models, cases = policy.models, policy.cases
    key = models.trusted_release_key or "whatever key the kit brought"
    sending = (
        f"Flagged smears may be sent, {cases.most_per_day} a day at most" if cases.send_flagged else "No case is sent"
    )
    incoming = "" if cases.send_incoming or not cases.send_flagged else ", but none from the incoming folder"
    accepts = "are installed by themselves" if models.acceptance == "automatic" else "wait for a person"
    return (
        *_training(policy.training),
        *(f'Data set "{source}": {_uses(policy.purposes_of(source))}.' for source in sources),
        f"Apps and models are trusted if signed by the release key {key}.",
        f"Models that lose no more than {models.tolerance:.1%} accuracy on our own cells {accepts}.",
        f"{sending}{incoming}.",
        f"Where a reader asks, further fields of a sent smear follow, {cases.most_more_cells} white cells more at most."
        if cases.send_flagged and cases.more_fields
        else "No further fields of a smear follow where a reader asks.",
    )


def remarks(policy: Policy, sources: Iterable[str]) -> tuple[str, ...]:
    """Return what is allowed to stand there but probably not meant."""
    rules, known = policy.training, set(sources)
    named = {*rules.datasets, *rules.groups_are_patients, *(rule.name for rule in rules.dataset)} - {EVERY}
    lines = [f'no data set here is called "{name}"' for name in sorted(named - known)]
    lines += [
        f'"{rule.name}" names {purpose}, which `purposes` does not allow for any data set'
        for rule in rules.dataset
        for purpose in rule.purposes
        if purpose not in rules.purposes
    ]
    if rules.least_privacy != "none" and rules.most_epsilon > rules.total_epsilon:
        lines.append("`most_epsilon` of one run is beyond `total_epsilon` of all of them, which therefore decides")
    if rules.least_privacy == "dp-patient" and not rules.groups_are_patients:
        lines.append(
            "no data set is in `groups_are_patients`, so that every request for patients as the unit is refused"
        )
    if rules.enabled and rules.least_participants == 1:
        lines.append("an update of this hospital alone tells the most about its own images")
    return tuple(lines)


def _training(rules: TrainingPolicy) -> tuple[str, ...]:
    if not rules.enabled:
        return ("This hospital takes no part in federated training: every request is refused.",)
    every = "any data set" if EVERY in rules.datasets else ", ".join(rules.datasets) or "no data set but those below"
    networks = "any network" if EVERY in rules.backbones else f"the networks {', '.join(rules.backbones)}"
    most = f"At most {rules.most_epochs} passes a round and {rules.most_rounds} rounds a run"
    return (
        f"Labelled images of {every}: {_uses(rules.purposes)}.",
        f"Training runs {in_words(rules.hours, rules.days)}, on {networks}.",
        "Pretrained weights that this node lacks are fetched from the centre."
        if rules.fetch_bases
        else "Pretrained weights that this node lacks are not fetched: its staff add them.",
        f"{most}, and {rules.most_megabytes} MB of tensors a message.",
        f"Only with {rules.least_participants} or more hospitals, this one included.",
        f"Only with {rules.least_examples} or more labelled cells.",
        _privacy(rules),
        f"All private training together spends at most ε {rules.total_epsilon:g} (at δ = {rules.total_delta:g}).",
        _machine(rules),
    )


def _privacy(rules: TrainingPolicy) -> str:
    masked = " Updates leave under secure aggregation only." if rules.masked_only else ""
    if rules.least_privacy == "none":
        return f"Training without noise is accepted.{masked}"
    return (
        f"Training only with {_PRIVACY[rules.least_privacy]}: ε at most {rules.most_epsilon:g}, δ at most"
        f" {rules.most_delta:g}.{masked}"
    )


def _machine(rules: TrainingPolicy) -> str:
    if rules.gpu_share == rules.gpu_memory == 1:
        return "Training may take the whole machine while it runs."
    return f"Training computes {rules.gpu_share:.0%} of the time and takes {rules.gpu_memory:.0%} of a GPU's memory."


def _uses(purposes: Iterable[Purpose]) -> str:
    given = set(purposes)
    return ", ".join(_MEANS[purpose] for purpose in PURPOSES if purpose in given) or "not used"


def _sources(home: NodeHome) -> list[str]:
    return sorted({row.source for row in Catalogue(home.path).census().rows})
