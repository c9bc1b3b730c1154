"""What a running ServerApp writes down: one short transaction a fact, so that pages see each as it happens."""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlmodel import Session

import server.audit.service as audit
from server.db.session import Database
from server.federation import repository, service, steering
from server.federation.planning import chosen_sites
from server.federation.privacy import RunPrivacy
from server.federation.states import RunState, SiteState
from server.federation.strategies import registry as strategies
from server.models.base import utc_now
from server.models.federation import RoundRecord, Run, SiteRound
from shared.contracts.enrolment import Heartbeat
from shared.contracts.errors import ConflictError, NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.training import EvaluateReply, Recipe, TrainReply

_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do."""

    run_id: str
    recipe: Recipe
    strategy: strategies.Parameters
    privacy: RunPrivacy
    rounds: int
    min_sites: int
    round_deadline_seconds: int
    base_sha256: str
    parent: str | None
    sites: frozenset[str] | None = None
    """Hospital ids of those that are asked; None: every approved one."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of one message pair, as the centre sees them: up is from the hospital."""

    up: int
    down: int


class SupersededError(ConflictError):
    """Another Flower run carries this run by now: this process has no part in it any more."""


class RunBook:
    """The rows of one run, written by the Flower run that carries it and by no other.

    Every method that writes raises `SupersededError` once the run was resumed elsewhere.
    """

    def __init__(self, database: Database, run_id: str) -> None:
        self._database = database
        self.run_id = run_id
        self._flower_run_id: str | None = None

    def begin(self, flower_run_id: str) -> Plan:
        """Mark the run as running and return its plan.

        Raises:
            ConflictError: the run rests or has ended, or another Flower run carries it.
        """
        with self._database.session() as session:
            run = self._run(session)
            taken = flower_run_id in run.past_flower_runs or run.flower_run_id not in (None, flower_run_id)
            if not run.state.active or taken:
                raise ConflictError("This run is carried by another Flower run, or over.")
            run.flower_run_id = self._flower_run_id = flower_run_id
            run.state = RunState.RUNNING
            run.started_at = run.started_at or utc_now()
            if run.base_sha256 is None:
                raise NotFoundError("The run has no start tensors; launch it again.")
            return Plan(
                run_id=run.id,
                recipe=Recipe.model_validate(run.recipe),
                strategy=strategies.parse(run.strategy, run.strategy_parameters),
                privacy=RunPrivacy.model_validate(run.privacy),
                rounds=run.rounds,
                min_sites=run.min_sites,
                round_deadline_seconds=run.round_deadline_seconds,
                base_sha256=run.base_sha256,
                parent=run.parent,
                sites=chosen_sites(run.plan),
            )

    def welcome(self, sites: Collection[str] | None = None) -> dict[int, str]:
        """Return Flower's node id → hospital id of the approved training nodes; with ``sites``, of these hospitals'."""
        with self._database.session(read_only=True) as session:
            return {
                int(node.flower_node_id): node.hospital_id
                for node in repository.training_nodes(session)
                if node.flower_node_id and (sites is None or node.hospital_id in sites)
            }

    def signing_keys(self) -> dict[int, str]:
        """Return Flower's node id → public signing key of the approved training nodes: who may answer for whom."""
        with self._database.session(read_only=True) as session:
            nodes = repository.training_nodes(session)
            return {int(node.flower_node_id): node.signing_key for node in nodes if node.flower_node_id}

    def protocols(self) -> dict[int, int]:
        """Return Flower's node id → what the node's last heartbeat says that it reads; who never sent one is absent."""
        with self._database.session(read_only=True) as session:
            nodes = repository.training_nodes(session)
            return {
                int(node.flower_node_id): Heartbeat.model_validate(node.heartbeat).protocol
                for node in nodes
                if node.flower_node_id and node.heartbeat
            }

    def rounds_done(self) -> int:
        """Return the number of the last round that has ended; 0: none."""
        with self._database.session(read_only=True) as session:
            return max((row.round for row in repository.rounds(session, self.run_id) if row.ended_at), default=0)

    def epsilon(self) -> float | None:
        """Return what noise at the centre has spent of every hospital so far; None: it added none."""
        with self._database.session(read_only=True) as session:
            spent = [row.epsilon for row in repository.rounds(session, self.run_id) if row.epsilon is not None]
            return max(spent, default=None)

    def stop_requested(self) -> bool:
        """Whether the coordinator wants the run to stop, or it has been ended or resumed from outside."""
        with self._database.session(read_only=True) as session:
            run = self._run(session)
            return run.stop_requested or not run.state.active or self._superseded(run)

    def pause_requested(self) -> bool:
        """Whether the coordinator wants the run to pause."""
        with self._database.session(read_only=True) as session:
            return self._run(session).pause_requested

    def paused(self, done: int) -> bool:
        """Pause after ``done`` rounds if the coordinator wants it, and no stop; return whether."""
        if not self.pause_requested():
            return False
        with self._writing() as session:
            run = self._run(session)
            if run.stop_requested or not run.pause_requested:
                return False
            steering.pause(session, run, f"Paused after {done} of {run.rounds} rounds")
            return True

    def event(self, kind: str, text: str) -> None:
        """Add a line to the log book."""
        with self._writing() as session:
            service.write_event(session, self.run_id, kind, text)

    def begin_round(self, number: int, hospitals: list[str], bytes_down: int) -> None:
        """Write down that a round starts and with whom; a repeated round replaces its first try."""
        with self._writing() as session:
            for row in [
                *(site for site in repository.site_rounds(session, self.run_id) if site.round == number),
                *(old for old in [repository.get_round(session, self.run_id, number)] if old),
            ]:
                session.delete(row)
            session.flush()
            repository.add(
                session, RoundRecord(run_id=self.run_id, round=number, started_at=utc_now(), sampled=len(hospitals))
            )
            for hospital_id in hospitals:
                repository.add(
                    session,
                    SiteRound(run_id=self.run_id, round=number, hospital_id=hospital_id, bytes_down=bytes_down),
                )
            service.write_event(
                session, self.run_id, "round", f"Round {number} starts with {', '.join(sorted(hospitals))}"
            )

    def replied(self, number: int, hospital_id: str, reply: TrainReply, traffic: Traffic) -> None:
        """Write down a hospital's accepted update."""
        with self._writing() as session:
            site = self._site(session, number, hospital_id)
            site.state = SiteState.REPLIED
            site.examples, site.feedback_cells = reply.examples, reply.feedback_cells
            site.train_loss, site.loss = _finite(reply.train_loss), _finite(reply.received.loss)
            site.epsilon = reply.privacy.epsilon if reply.privacy is not None else None
            site.accuracy, site.macro_f1, site.n = reply.received.accuracy, reply.received.macro_f1, reply.received.n
            site.seconds = _finite(reply.seconds)
            site.bytes_up, site.bytes_down = traffic.up, traffic.down
            self._count(session, number)
            service.write_event(
                session,
                self.run_id,
                "site",
                f"{hospital_id} trained on {reply.examples} cells"
                f" (received model: {reply.received.accuracy:.1%} of {reply.received.n})"
                + (f"; ε {reply.privacy.epsilon:g} spent" if reply.privacy is not None else ""),
            )

    def refused(self, number: int, hospital_id: str, reason: str, traffic: Traffic, *, code: str = "") -> None:
        """Write down that a hospital refused, failed or sent something unusable; also in the audit."""
        with self._writing() as session:
            site = self._site(session, number, hospital_id)
            site.state, site.reason = SiteState.REFUSED, reason[:_MAX_REASON]
            site.bytes_up, site.bytes_down = traffic.up, traffic.down
            self._count(session, number)
            service.write_event(session, self.run_id, "site", f"{hospital_id} did not train: {reason[:_MAX_REASON]}")
            self._audit(session, hospital_id, code=code, reason=reason, what=f"round {number}")

    def set_aside(self, number: int, hospital_id: str, reason: str, *, refused: bool) -> None:
        """Write down that a hospital's update, taken at first, has no part in the round's model.

        ``refused``: it is unfit; its cells then do not count as what the model learnt from.
        """
        with self._writing() as session:
            site = self._site(session, number, hospital_id)
            site.reason = reason[:_MAX_REASON]
            if refused:
                site.state, site.examples, site.feedback_cells = SiteState.REFUSED, None, None
            self._count(session, number)
            verb = "is refused" if refused else "is left out"
            service.write_event(session, self.run_id, "site", f"{hospital_id} {verb}: {reason[:_MAX_REASON]}")

    def end_round(self, number: int, *, whole: bool = True, epsilon: float | None = None) -> None:
        """Complete a round's figures: means over sites are weighted by their validation cells.

        ``whole``: it left a checkpoint. Only then the run's tries are given back: one that fails in a round, dies and
        is resumed would else go on for ever. ``epsilon``: what noise at the centre has spent with it.
        """
        with self._writing() as session:
            row = repository.get_round(session, self.run_id, number)
            if row is None:
                raise NotFoundError("There is no such round.")
            self._count(session, number)
            row.ended_at = utc_now()
            row.whole, row.epsilon = whole, epsilon if whole else None
            if whole:
                self._run(session).resumes = 0
            row.seconds = (row.ended_at - row.started_at).total_seconds()
            sites = [site for site in repository.site_rounds(session, self.run_id) if site.round == number]
            for site in sites:
                if site.state is SiteState.SAMPLED:
                    site.state, site.reason = SiteState.MISSING, "No answer before the round's deadline."
                    service.write_event(session, self.run_id, "site", f"{site.hospital_id} did not answer in time")
            row.loss = service.weighted_mean((site.loss, site.n) for site in sites)
            row.accuracy = service.weighted_mean((site.accuracy, site.n) for site in sites)
            told = f"; the model it started from: {row.accuracy:.1%}" if row.accuracy is not None else ""
            service.write_event(
                session,
                self.run_id,
                "round",
                f"Round {number} ends: {row.replied} of {row.sampled} replied in {row.seconds:.0f} s{told}",
            )

    def evaluating(self) -> None:
        """Mark the run as evaluating its candidate; what an evaluation before a resumption found is forgotten."""
        with self._writing() as session:
            run = self._run(session)
            run.state, run.per_site, run.validated = RunState.EVALUATING, None, None
            service.write_event(session, self.run_id, "evaluate", "The candidate is evaluated at every hospital")

    def evaluated(self, hospital_id: str, reply: EvaluateReply) -> None:
        """Write down how the candidate does at one hospital."""
        with self._writing() as session:
            run = self._run(session)
            run.per_site = {**(run.per_site or {}), hospital_id: reply.candidate.model_dump(mode="json")}
            if reply.validation is not None:
                run.validated = {**(run.validated or {}), hospital_id: reply.validation.model_dump(mode="json")}
            before = f", the current model {reply.current.accuracy:.1%}" if reply.current else ""
            service.write_event(
                session,
                self.run_id,
                "evaluate",
                f"{hospital_id}: {reply.candidate.accuracy:.1%} of {reply.candidate.n} held-out cells{before}",
            )

    def not_evaluated(self, hospital_id: str, reason: str, *, code: str = "") -> None:
        """Write down that a hospital did not evaluate the candidate; also in the audit."""
        with self._writing() as session:
            text = f"{hospital_id} did not evaluate: {reason[:_MAX_REASON]}"
            service.write_event(session, self.run_id, "evaluate", text)
            self._audit(session, hospital_id, code=code, reason=reason, what="evaluation")

    def examples(self) -> dict[str, int]:
        """Return, per hospital, the training cells of its last update."""
        with self._database.session(read_only=True) as session:
            return repository.examples(session, self.run_id)

    def cells(self, recipe: Recipe) -> dict[str, dict[CellClass, int]]:
        """Return, per hospital that trained, its training cells by class of the recipe, as its census last told."""
        with self._database.session(read_only=True) as session:
            taught = repository.examples(session, self.run_id)
            counted = service.cells_by_class(session, recipe.classes)
        return {hospital: counted[hospital] for hospital in taught if counted.get(hospital)}

    def complete(self, session: Session, model_version: str) -> None:
        """End the run well; in the transaction that registers its model."""
        run = self._run(session)
        if self._superseded(run):
            raise SupersededError("Another Flower run carries this run by now.")
        run.state, run.ended_at, run.model_version = RunState.COMPLETED, utc_now(), model_version
        service.write_event(session, self.run_id, "model", f"{model_version} is registered as a candidate")

    def fail(self, problem: str) -> None:
        """End the run badly, or as stopped where that was asked for; nothing where it is carried elsewhere."""
        with self._database.session() as session:
            if not self._superseded(self._run(session)):
                service.fail(session, self.run_id, problem)

    def broken(self, problem: str) -> None:
        """This process ends without its own fault or the hospitals': the run is resumed by another, if it may be."""
        with self._database.session() as session:
            if self._flower_run_id is not None:
                steering.recover(session, self.run_id, self._flower_run_id, problem)

    def _audit(self, session: Session, hospital_id: str, *, code: str, reason: str, what: str) -> None:
        """The hospital's own staff read it too: the subject is the hospital."""
        audit.record(
            session,
            subject=f"hospital:{hospital_id}",
            actor=f"hospital:{hospital_id}",
            action="federation.refused",
            data={"run": self.run_id, "what": what, "code": code, "reason": reason[:_MAX_REASON]},
        )

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self._database.session() as session:
            if self._superseded(self._run(session)):
                raise SupersededError("Another Flower run carries this run by now.")
            yield session

    def _superseded(self, run: Run) -> bool:
        return self._flower_run_id is not None and run.flower_run_id != self._flower_run_id

    def _run(self, session: Session) -> Run:
        run = repository.get(session, self.run_id)
        if run is None:
            raise NotFoundError("There is no such run.")
        return run

    def _site(self, session: Session, number: int, hospital_id: str) -> SiteRound:
        site = repository.get_site_round(session, self.run_id, number, hospital_id)
        if site is None:
            raise NotFoundError("This hospital was not sampled.")
        return site

    def _count(self, session: Session, number: int) -> None:
        session.flush()
        row = repository.get_round(session, self.run_id, number)
        if row is None:
            return
        sites = [site for site in repository.site_rounds(session, self.run_id) if site.round == number]
        row.replied = sum(site.state is SiteState.REPLIED for site in sites)
        row.bytes_up = sum(site.bytes_up for site in sites)
        row.bytes_down = sum(site.bytes_down for site in sites)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
