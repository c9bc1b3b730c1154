"""The ServerApp of an app that nobody signed: asks every node to train and writes down what came back."""

import os
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.federation.fleet import Ask
from server.federation.server_app import GridFleet
from shared.contracts.ontology import CellClass
from shared.contracts.training import Recipe, TrainRequest

app = ServerApp()
OUTPUT = "ROGUE_OUTPUT"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask every connected node to train."""
    fleet = GridFleet(grid)
    end = time.monotonic() + 30
    while not fleet.online() and time.monotonic() < end:
        time.sleep(0.5)
    recipe = Recipe(classes=(CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE))
    request = TrainRequest(run_key="rogue", round=1, rounds=1, base_sha256="0" * 64, recipe=recipe, participants=9)
    asks = dict.fromkeys(fleet.online(), Ask(request, b""))
    answers = [answer.problem or answer.reply for answer in fleet.ask(asks, group="1", seconds=60, stopped=bool)]
    Path(os.environ[OUTPUT]).write_text("\n".join(answers))
