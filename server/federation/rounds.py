"""One federated run from its first round to the registered candidate; knows the fleet only as a port."""

import time
from collections.abc import Iterator, Mapping

import structlog

import server.registry.service as registry
from server.federation import checkpoints, steering
from server.federation.answers import read_reply
from server.federation.attendance import Attendance, Stop, StoppedError
from server.federation.book import Plan, RunBook, SupersededError, Traffic
from server.federation.fleet import Answer, Ask, Fleet
from server.federation.masked_round import MaskedRound, TooFewError
from server.federation.privacy import Measure
from server.federation.seals import SealCheck
from server.federation.strategies.build import build as build_strategy
from server.federation.strategies.masked import MaskedAggregation
from server.federation.strategies.port import Closed, Result, Sent, Strategy
from server.federation.strategies.tensors import Tensors, read_tensors, wire_tensors
from server.federation.strategies.updates import verify
from server.federation.wire import Wire
from server.registry.artefacts import Candidate, build
from server.runtime import Runtime
from shared.contracts.errors import DataInvalidError, HematovisionError, RunFailedError, ServiceUnavailableError
from shared.contracts.training import EvaluateReply, EvaluateRequest, TrainReply, TrainRequest

BREATH_SECONDS = 2.0
"""Between rounds: pages look once a second, and a coordinator should see a round's end before the next one starts."""

log = structlog.get_logger(__name__)


class LostError(RunFailedError):
    """Too few hospitals took part, and some of those that did not were lost on the way rather than unwilling."""

    def __init__(self, message: str, *, hospitals: set[str], broken: bool) -> None:
        super().__init__(message)
        self.hospitals = hospitals
        """Who was lost."""
        self.tries = steering.MOST_RESUMES if broken else 1
        """A process that died is back soon; who merely was too slow is likely to be so again."""


def conduct(
    runtime: Runtime, run_id: str, fleet: Fleet, *, flower_run_id: str, breath_seconds: float = BREATH_SECONDS
) -> str | None:
    """Run all rounds, evaluate and register the candidate; return its version, or None where the run was paused.

    Every end is written down before the error goes on: the run is marked failed (or stopped); where neither the plan
    nor a hospital is at fault but a server or this process, it is resumed from its last checkpoint instead.
    """
    book = RunBook(runtime.database, run_id)
    plan = book.begin(flower_run_id)
    try:
        strategy = build_strategy(
            plan.strategy, folder=runtime.settings.home / "spool", privacy=plan.privacy, rounds=plan.rounds
        )
        return _Conductor(runtime, book, fleet, strategy, breath_seconds).run(plan)
    except SupersededError:
        log.warning("federation.run_superseded", run_id=run_id, flower_run_id=flower_run_id)
        raise
    except ServiceUnavailableError as error:
        log.warning("federation.run_broken", run_id=run_id, code=error.code)
        book.broken(error.message)
        raise
    except HematovisionError as error:
        log.warning("federation.run_failed", run_id=run_id, code=error.code)
        book.fail(error.message)
        raise
    except Exception:
        book.broken("An unexpected error ended the run's process; the ServerApp's log has the details.")
        raise


class _Conductor:
    def __init__(
        self, runtime: Runtime, book: RunBook, fleet: Fleet, strategy: Strategy, breath_seconds: float
    ) -> None:
        self._runtime = runtime
        self._book = book
        self._fleet = fleet
        self._strategy = strategy
        self._stop = Stop(book)
        self._attendance = Attendance(book, fleet, self._stop)
        self._breath = breath_seconds
        self._wire = Wire(runtime, book)

    def run(self, plan: Plan) -> str | None:
        done = checkpoints.last(self._runtime.store, plan.run_id, self._book.rounds_done())
        tensors = read_tensors(checkpoints.load(self._runtime.store, plan.run_id, done))
        state = checkpoints.load_state(self._runtime.store, plan.run_id, done)
        if done:
            self._book.event("run", f"Resumed after round {done}")
        for number in range(done + 1, plan.rounds + 1):
            result = self._insistently(plan, number, tensors, state)
            if result is None:
                return None
            tensors, state = result.tensors, result.state
            if number < plan.rounds:
                time.sleep(self._breath)
        return None if self._book.paused(plan.rounds) else self._finish(plan, tensors)

    def _insistently(self, plan: Plan, number: int, tensors: Tensors, state: Tensors) -> Result | None:
        """Play a round, once more where it failed for hospitals that were lost on the way; None: the run pauses."""
        tried = 0
        while not self._book.paused(number - 1):
            try:
                return self._round(plan, number, tensors, state)
            except LostError as error:
                tried += 1
                if tried > error.tries:
                    raise
                self._book.event("round", f"{error.message} It is played again ({tried} of {error.tries}).")
                self._attendance.await_return(error.hospitals)
        return None

    def _round(self, plan: Plan, number: int, tensors: Tensors, state: Tensors) -> Result:
        sites = self._attendance.sample(plan)
        form, body, sent = self._wire.send(plan, number, sites, tensors, state)
        request = TrainRequest(
            run_key=plan.run_id,
            round=number,
            rounds=plan.rounds,
            base_sha256=plan.base_sha256,
            recipe=plan.recipe,
            participants=len(sites),
            privacy=plan.privacy.asked,
            form=form,
        )
        ask = Ask(request, body)
        down = len(body) + len(request.model_dump_json(by_alias=True))
        self._book.begin_round(number, sorted(sites.values()), down)
        if plan.privacy.measure is Measure.SECURE_AGGREGATION:
            return self._masked_round(plan, sites, ask, sent, down)
        aggregation = self._strategy.begin(sent)
        silent, broken = set(sites.values()), set[str]()
        for answer, hospital in self._answers(plan, sites, ask, group=str(number)):
            traffic = Traffic(up=len(answer.tensors) + len(answer.reply), down=down)
            silent.discard(hospital)
            try:
                reply = _train_reply(answer, plan)
                aggregation.add(verify(hospital, answer.tensors, sent, examples=reply.examples, boxes=reply.boxes))
            except HematovisionError as error:
                self._book.refused(number, hospital, error.message, traffic, code=error.code)
                if _is_lost(answer, error):
                    broken.add(hospital)
            else:
                self._book.replied(number, hospital, reply, traffic)
        self._stop.check()
        closed = aggregation.close()
        self._close(number, closed)
        if aggregation.updates < min(plan.min_sites, len(sites)):
            self._book.end_round(number, whole=False)
            problem = (
                f"Only {aggregation.updates} of {len(sites)} hospitals took part in round {number}, {plan.min_sites}"
                " are needed; see each hospital's reason in the round's table."
            )
            if broken or silent:
                raise LostError(problem, hospitals=broken | silent, broken=bool(broken))
            raise RunFailedError(problem)
        return self._keep(plan, number, aggregation.result(), closed)

    def _keep(self, plan: Plan, number: int, result: Result, closed: Closed) -> Result:
        checkpoints.save(self._runtime.store, plan.run_id, number, result.tensors, result.state)
        for note in closed.notes:  # of a round that is kept: noise spends nothing where no model leaves the centre
            self._book.event("round", note)
        self._book.end_round(number, epsilon=closed.epsilon)
        return result

    def _masked_round(self, plan: Plan, sites: dict[int, str], ask: Ask, sent: Sent, down: int) -> Result:
        """Play a round of which no single update is seen; who is lost after sharing keys does not spoil it."""
        number, broken, trained = sent.number, set[str](), set[str]()
        aggregation = MaskedAggregation(self._strategy, sent)

        def replied(hospital: str, answer: Answer, before: int) -> None:
            traffic = Traffic(up=before + len(answer.tensors) + len(answer.reply), down=down)
            self._book.replied(number, hospital, _train_reply(answer, plan), traffic)
            trained.add(hospital)

        def refused(hospital: str, answer: Answer, error: HematovisionError) -> None:
            if _is_lost(answer, error):
                broken.add(hospital)
            if hospital in trained:
                self._book.event("site", f"{hospital} did not help to unmask the sum: {error.message}")
                return
            traffic = Traffic(up=len(answer.reply), down=down)
            self._book.refused(number, hospital, error.message, traffic, code=error.code)

        masked = MaskedRound(
            aggregation=aggregation,
            train=ask,
            exchange=lambda asks, seconds: self._checked(
                sites, {node: one.fresh() for node, one in asks.items()}, group=str(number), seconds=seconds
            ),
            least=min(plan.min_sites, len(sites)),
            seconds=float(plan.round_deadline_seconds),
            trained=replied,
            refused=refused,
        )
        try:
            masked.play(list(sites))
        except TooFewError as error:
            self._stop.check()
            self._book.end_round(number, whole=False)
            silent = {sites[node] for node in masked.silent}
            if broken or silent:
                raise LostError(error.message, hospitals=broken | silent, broken=bool(broken)) from error
            raise RunFailedError(error.message) from error
        self._stop.check()
        closed = aggregation.close()
        self._close(number, closed)
        return self._keep(plan, number, aggregation.result(), closed)

    def _close(self, number: int, closed: Closed) -> None:
        """Write down whose updates the strategy left out."""
        for hospital, reason in closed.refused.items():
            self._book.set_aside(number, hospital, reason, refused=True)
        for hospital, reason in closed.left_out.items():
            self._book.set_aside(number, hospital, reason, refused=False)

    def _finish(self, plan: Plan, tensors: Tensors) -> str:
        self._book.evaluating()
        body = wire_tensors(tensors)
        replies = self._evaluate(plan, body)
        if not replies:
            raise RunFailedError("No hospital evaluated the candidate, so it was not registered; launch the run again.")
        examples = self._book.examples()
        hidden = plan.privacy.measure in (Measure.CENTRAL_DP, Measure.SECURE_AGGREGATION)
        candidate = Candidate(
            run_id=plan.run_id,
            recipe=plan.recipe,
            base_sha256=plan.base_sha256,
            # What was evaluated is what is registered: the values that travelled.
            tensors=read_tensors(body),
            evaluations={hospital: _without_cells(reply) for hospital, reply in replies.items()} if hidden else replies,
            examples={} if hidden else examples,
            # Beside a private answer's rounded count these would be the exact ones.
            cells=self._book.cells(plan.recipe) if plan.privacy.measure is Measure.NONE else {},
            privacy=plan.privacy.of_model(self._book.epsilon()),
            parent=plan.parent,
        )
        signed = build(self._runtime, candidate)
        with self._runtime.database.session() as session:
            registry.register(session, signed, replies, trained=examples)
            self._book.complete(session, signed.card.version)
        return signed.card.version

    def _evaluate(self, plan: Plan, body: bytes) -> dict[str, EvaluateReply]:
        """Ask every hospital about the candidate; who was lost on the way is asked again, for the gate must know."""
        sites = self._attendance.sample(plan)
        request = EvaluateRequest(
            run_key=plan.run_id,
            base_sha256=plan.base_sha256,
            recipe=plan.recipe,
            participants=len(sites),
            privacy=plan.privacy.asked,
        )
        replies: dict[str, EvaluateReply] = {}
        open_sites = sites
        for tried in range(steering.MOST_RESUMES + 1):
            heard = self._ask_evaluation(plan, open_sites, Ask(request, body), replies)
            lost = {node: name for node, name in open_sites.items() if heard.get(name) is not False}
            most = steering.MOST_RESUMES if any(heard.values()) else 1
            if not lost or tried >= most:
                break
            names = sorted(lost.values())
            verb = "is" if len(names) == 1 else "are"
            self._book.event("network", f"{', '.join(names)} did not evaluate and {verb} asked again")
            self._attendance.await_return(set(names))
            try:
                again = self._attendance.sample(plan)
            except StoppedError:
                raise
            except RunFailedError:
                break  # Too few came back; what the others answered stands, and the gate says who is missing.
            open_sites = {node: name for node, name in again.items() if name in names}
            if not open_sites:
                break
        for missing in sorted(set(sites.values()) - set(replies)):
            log.info("federation.not_evaluated", run_id=plan.run_id, hospital_id=missing)
        return replies

    def _ask_evaluation(
        self, plan: Plan, sites: dict[int, str], ask: Ask, replies: dict[str, EvaluateReply]
    ) -> dict[str, bool]:
        """Put what hospitals answer into ``replies``; return whether each that was heard was lost on the way."""
        heard: dict[str, bool] = {}
        for answer, hospital in self._answers(plan, sites, ask, group="evaluate"):
            try:
                replies[hospital] = _evaluate_reply(answer)
            except HematovisionError as error:
                self._book.not_evaluated(hospital, error.message, code=error.code)
                heard[hospital] = _is_lost(answer, error)
            else:
                heard[hospital] = False
                self._book.evaluated(hospital, replies[hospital])
        self._stop.check()
        return heard

    def _answers(self, plan: Plan, sites: dict[int, str], ask: Ask, *, group: str) -> Iterator[tuple[Answer, str]]:
        """Yield each sampled node's first answer, its seal checked; anything else is not counted."""
        asks, seconds = dict.fromkeys(sites, ask.fresh()), float(plan.round_deadline_seconds)
        yield from self._checked(sites, asks, group=group, seconds=seconds)

    def _checked(
        self, sites: dict[int, str], asks: Mapping[int, Ask], *, group: str, seconds: float
    ) -> Iterator[tuple[Answer, str]]:
        keys = self._book.signing_keys()
        heard: set[int] = set()
        for answer in self._fleet.ask(asks, group=group, seconds=seconds, stopped=self._stop):
            if answer.node_id in asks and answer.node_id not in heard:
                heard.add(answer.node_id)
                yield SealCheck.of(keys, asks[answer.node_id])(answer), sites[answer.node_id]


def _is_lost(answer: Answer, error: HematovisionError) -> bool:
    """Whether a process has died on the way: SuperNode, relay or trainer; what a policy refuses has another code."""
    return bool(answer.problem) or error.code == ServiceUnavailableError.code


def _train_reply(answer: Answer, plan: Plan) -> TrainReply:
    reply = read_reply(answer)
    if not isinstance(reply, TrainReply):
        raise DataInvalidError("The node's answer does not fit the request.")
    promise, spent = plan.privacy, reply.privacy
    if promise.asked is None:
        return reply
    if spent is None:
        raise DataInvalidError("The node trained without the noise that was asked for; update its software.")
    if spent.unit is not promise.unit or spent.epsilon > promise.epsilon or spent.delta > promise.delta:
        raise DataInvalidError(
            f"The node says that it spent ε {spent.epsilon:g} at δ {spent.delta:g} for each {spent.unit.value}, which"
            " is not what the run promises; update its software."
        )
    return reply


def _without_cells(reply: EvaluateReply) -> EvaluateReply:
    """Return what may go into a version whose tensors hide each hospital: nothing of its training cells or fields.

    Its figures stay, since a node and the gate go by them: a card names who evaluated.
    """
    return reply.model_copy(update={"laboratory": None, "finder": None, "boxes": 0})


def _evaluate_reply(answer: Answer) -> EvaluateReply:
    reply = read_reply(answer)
    if not isinstance(reply, EvaluateReply):
        raise DataInvalidError("The node's answer does not fit the request.")
    return reply
