"""A fleet in memory whose sites are functions, and runs for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from safetensors.numpy import load, save

from server.federation import checkpoints, repository
from server.federation.fleet import Answer, Ask
from server.federation.privacy import RunPrivacy
from server.federation.strategies.registry import FedAvgParameters, Parameters
from server.federation.strategies.tensors import Tensors
from server.models import Run
from server.runtime import Runtime
from shared.contracts.ontology import CellClass
from shared.contracts.training import CalibrationSummary, EvaluateReply, Recipe, SiteMetrics, TrainReply, TrainRequest
from shared.seal import request_digest, seal
from tests.server.federation.world import node_key

RECIPE = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))
RECEIVED = SiteMetrics(n=10, loss=1.0, accuracy=0.5, macro_f1=0.5)
EVALUATION = EvaluateReply(
    candidate=SiteMetrics(n=10, loss=0.7, accuracy=0.8, macro_f1=0.75),
    validation=SiteMetrics(n=30, loss=0.6, accuracy=0.9, macro_f1=0.85),
    current=None,
    calibration=CalibrationSummary(temperature=1.0, conformal_quantile=0.9),
    seconds=0.1,
)
Site = Callable[[Ask], Answer | None]


def trains(node_id: int, *, step: float, examples: int = 10, accuracy: float = 0.5) -> Site:
    """Return a site that adds ``step`` to every tensor, and does not evaluate."""

    def site(ask: Ask) -> Answer | None:
        if not isinstance(ask.request, TrainRequest):
            return None
        updated = {name: (array + np.float16(step)).astype(np.float16) for name, array in load(ask.tensors).items()}
        reply = TrainReply(
            examples=examples,
            train_loss=0.1,
            received=RECEIVED.model_copy(update={"accuracy": accuracy}),
            seconds=1.0,
            manifest_sha256="0" * 64,
        )
        return Answer(node_id, reply.model_dump_json(), bytes(save(updated)))

    return site


def says(node_id: int, reply: str, *, tensors: bytes = b"", problem: str | None = None) -> Site:
    """Return a site that always answers the same."""
    return lambda _ask: Answer(node_id, reply, tensors, problem)


def silent(_ask: Ask) -> None:
    """Never answer."""


@dataclass
class MemoryFleet:
    """Sites by Flower node id; asks are kept. ``before`` runs before each exchange.

    What a site says is signed by its node's key, unless the site has put a seal of its own beside it.
    """

    sites: dict[int, Site]
    asked: list[tuple[str, int, Ask]] = field(default_factory=list)
    before: Callable[[str], None] = field(default=lambda _group: None)

    def online(self) -> set[int]:
        return set(self.sites)

    def ask(
        self, asks: Mapping[int, Ask], *, group: str, seconds: float, stopped: Callable[[], bool]
    ) -> Iterator[Answer]:
        self.before(group)
        for node_id, ask in asks.items():
            self.asked.append((group, node_id, ask))
            if not stopped() and (answer := self.sites[node_id](ask)) is not None:
                yield answer if answer.seal or answer.problem else sealed(answer, ask)


def sealed(answer: Answer, ask: Ask) -> Answer:
    """Return the answer as its node's trainer signs it."""
    key, digest = node_key(str(answer.node_id)), request_digest(ask.text, ask.tensors)
    return replace(answer, seal=seal(key, digest, answer.reply, answer.tensors))


def new_run(
    runtime: Runtime,
    *,
    rounds: int = 2,
    min_sites: int = 2,
    value: float = 0.0,
    tensors: Tensors | None = None,
    strategy: Parameters | None = None,
    privacy: RunPrivacy | None = None,
) -> str:
    """Return a run that is ready to be conducted from ``tensors`` (a 2 × 2 of ``value``)."""
    chosen = strategy or FedAvgParameters()
    with runtime.database.session() as session:
        run = Run(
            recipe=chosen.asked(RECIPE).model_dump(mode="json"),
            strategy=chosen.name,
            strategy_parameters=chosen.model_dump(mode="json"),
            privacy=(privacy or RunPrivacy()).model_dump(mode="json"),
            rounds=rounds,
            min_sites=min_sites,
            round_deadline_seconds=1,
            created_by="test",
            base_sha256="0" * 64,
        )
        repository.add(session, run)
    start = {"w": np.full((2, 2), value, np.float32)} if tensors is None else tensors
    checkpoints.save(runtime.store, run.id, 0, start)
    return run.id
