"""``hematovision-node model`` and ``weights``: what analyses here, and what can be trained here.

Imports inside the commands are on purpose, as in `client_node.cli`.
"""

from pathlib import Path
from typing import Annotated

import typer

from client_node.commands import HomeOption, initialised, reload
from client_node.home import NodeHome
from shared.cli import JsonOption, emit
from shared.vision.precision import Precision

model_app = typer.Typer(help="The model that analyses here.")
weights_app = typer.Typer(help="Pretrained weights of the networks that can be trained here.")


@model_app.command("rollback")
def model_rollback(home: HomeOption, as_json: JsonOption = False) -> None:
    """Go back to the model before the current one."""
    from client_node.models.update import rollback

    initialised(home)
    decision = rollback(NodeHome(home))
    reload(home)
    emit(decision, as_json=as_json, text=f"{decision.version} is left: {decision.reason}.")


@model_app.command("accept")
def model_accept(
    version: Annotated[str, typer.Argument(help="A version that this node holds.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Install a model that was held."""
    from client_node.models.update import accept

    initialised(home)
    decision = accept(NodeHome(home), version)
    reload(home)
    emit(decision, as_json=as_json, text=f"{decision.version} analyses from now on.")


@model_app.command("quantise")
def model_quantise(
    home: HomeOption,
    version: Annotated[str | None, typer.Option("--version", help="Instead of the current model.")] = None,
    most_loss: Annotated[float, typer.Option("--most-loss", min=0, max=1, help="Accuracy that may be lost.")] = 0.01,
    least_speed_up: Annotated[float, typer.Option("--least-speed-up", min=0, help="Else it is not worth it.")] = 1.1,
    as_json: JsonOption = False,
) -> None:
    """Make the model's INT8 form from this site's cells, and use it if it is as good and faster here."""
    from client_node.models.quantise import quantise_model
    from shared.progress import progress

    with progress("Quantising") as reporter:
        output = quantise_model(
            NodeHome(home), version, most_loss=most_loss, least_speed_up=least_speed_up, progress=reporter
        )
    if output.kept:
        reload(home)
    emit(output, as_json=as_json, text=output.text())


@model_app.command("precision")
def model_precision(
    precision: Annotated[Precision, typer.Argument(help="fp32, or int8 once it was made.")],
    home: HomeOption,
    version: Annotated[str | None, typer.Option("--version", help="Instead of the current model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which form of the model analyses: the signed fp32 file or the INT8 form made here."""
    from client_node.models.quantise import switch_precision

    now = switch_precision(NodeHome(home), precision, version)
    reload(home)
    emit({"precision": now.value}, as_json=as_json, text=f"{now.value} analyses from now on.")


@model_app.command("view")
def model_view(home: HomeOption, as_json: JsonOption = False) -> None:
    """Without labels, bring this site's dye near to what the model knows, by the smears analysed here."""
    from client_node.models.trial import choose_without_labels

    initialised(home)
    found = choose_without_labels(NodeHome(home))
    reload(home)
    emit(found, as_json=as_json, text=found.text())


@weights_app.command("add")
def weights_add(
    backbone: Annotated[str, typer.Argument(help="The network's name, see `weights list`.")],
    file: Annotated[Path, typer.Argument(help="Its weights: .safetensors, or a torch state.")],
    sha256: Annotated[str, typer.Option("--sha256", help="The checksum that the file's publisher states.")],
    as_json: JsonOption = False,
) -> None:
    """Check a file of pretrained weights and keep a copy for this installation."""
    from shared.vision import backbones
    from shared.vision.weights import add_weights

    target = add_weights(backbones.get(backbone), file, sha256)
    emit({"backbone": backbone, "file": str(target)}, as_json=as_json, text=f"{backbone} can be trained here now.")


@weights_app.command("list")
def weights_list(as_json: JsonOption = False) -> None:
    """Name every network that can be trained, and whether its pretrained weights are here."""
    from shared.vision import backbones
    from shared.vision.weights import available

    rows = {name: available(backbones.get(name)) for name in backbones.names()}
    lines = [f"{name:<24} {place or f'missing ({backbones.get(name).hub})'}" for name, place in rows.items()]
    emit(rows, as_json=as_json, text="\n".join(lines))
