"""Its ServerApp: Flower's own FedAvg, which also notes when a round begins and ends."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .client_app import network

OUTPUT = "HEMATOVISION_STOCK_OUTPUT"
"""The variable that names the file for the rounds' seconds."""
_NODES = 3

app = ServerApp()


class Timed(FedAvg):
    """FedAvg with a clock; ``rounds``: (seconds from sending to the end of evaluation, slowest site's training)."""

    def __init__(self) -> None:
        super().__init__(min_train_nodes=_NODES, min_evaluate_nodes=_NODES, min_available_nodes=_NODES)
        self.rounds: list[tuple[float, float]] = []
        self._begin = self._slowest = 0.0

    def configure_train(self, *given: Any) -> Iterable[Message]:  # Any: Flower's own signature
        """Send the round out."""
        messages = super().configure_train(*given)
        self._begin = time.monotonic()
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average, and note who trained longest."""
        kept = list(replies)
        self._slowest = max(float(str(reply.content.metric_records["metrics"]["seconds"])) for reply in kept)
        averaged: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, kept)
        return averaged

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Close the round."""
        metrics: MetricRecord | None = super().aggregate_evaluate(server_round, replies)
        self.rounds.append((time.monotonic() - self._begin, self._slowest))
        return metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and write their seconds."""
    strategy = Timed()
    arrays = ArrayRecord(network().state_dict())
    strategy.start(grid, initial_arrays=arrays, num_rounds=int(context.run_config["num-rounds"]), timeout=600)
    Path(os.environ[OUTPUT]).write_text(json.dumps(strategy.rounds))
