"""``hematovision-node policy`` and ``rules``: what a hospital has decided, shown and checked.

Imports inside the commands are on purpose, as in `client_node.cli`.
"""

from pathlib import Path
from typing import Annotated

import typer

from client_node.commands import HomeOption
from client_node.home import HOME_VARIABLE, NodeHome
from shared.cli import JsonOption, emit

policy_app = typer.Typer(help="What this hospital allows; only a person here ever changes it.")
rules_app = typer.Typer(help="The rules by which smears are flagged.")


@policy_app.command("show")
def policy_show(home: HomeOption, as_json: JsonOption = False) -> None:
    """Say in plain words what this hospital's policy allows."""
    from client_node.policy_command import show_policy

    output = show_policy(NodeHome(home))
    emit(output, as_json=as_json, text=output.text())


@policy_app.command("check")
def policy_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A draft of policy.toml.")],
    home: Annotated[Path | None, typer.Option("--home", envvar=HOME_VARIABLE, help="The node's home folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a draft before it is put in place: name every wrong line, or say what it would allow."""
    from client_node.policy_command import check_policy
    from shared.contracts.errors import ExitCode

    output = check_policy(file, NodeHome(home) if home is not None else None)
    emit(output, as_json=as_json, text=output.text())
    if not output.sound:
        raise typer.Exit(ExitCode.CONFIG)


@rules_app.command("show")
def rules_show(home: HomeOption, as_json: JsonOption = False) -> None:
    """Say when each rule fires, and which of them this site has changed."""
    from client_node.analysis.rules import load_rules
    from client_node.rules_command import lines, show_text

    output = lines(load_rules(home), load_rules())
    emit(output, as_json=as_json, text=show_text(output))


@rules_app.command("check")
def rules_check(
    home: HomeOption,
    data: Annotated[Path, typer.Option("--data", help="Smears with labelled cells (labels.csv).")],
    model: Annotated[Path | None, typer.Option("--model", help="A model's folder, instead of the current one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure each rule on labelled smears: what it finds, what it misses, how many it sends to a reader."""
    from client_node.analysis.rule_check import check_rules
    from client_node.rules_command import check_text
    from shared.progress import progress

    with progress("Checking rules") as reporter:
        output = check_rules(home, data, model_dir=model, progress=reporter)
    emit(output, as_json=as_json, text=check_text(output))
