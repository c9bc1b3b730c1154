"""`hematovision-node`: what a hospital's IT calls.

Imports inside the commands are on purpose: ``--help`` and ``status`` must not wait for imaging and model libraries.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client_node.analysis.method import Method
from client_node.home import HOME_VARIABLE, NodeHome
from shared.cli import JsonOption, emit, run
from shared.contracts.case import Priority
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.errors import DependencyMissingError, UsageError
from shared.vision.precision import Precision

app = typer.Typer(name="hematovision-node", help="Run a hospital's node of Hematovision.", add_completion=False)
model_app = typer.Typer(help="The model that analyses here.")
app.add_typer(model_app, name="model")
policy_app = typer.Typer(help="What this hospital allows; only a person here ever changes it.")
app.add_typer(policy_app, name="policy")
rules_app = typer.Typer(help="The rules by which smears are flagged.")
app.add_typer(rules_app, name="rules")
weights_app = typer.Typer(help="Pretrained weights of the networks that can be trained here.")
app.add_typer(weights_app, name="weights")

HomeOption = Annotated[Path, typer.Option("--home", envvar=HOME_VARIABLE, help="The node's home folder.")]
SignedOption = Annotated[bool, typer.Option("--signed", help="Only cells whose label came with a signed report.")]


@app.callback()
def _setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done to stderr.")] = False,
) -> None:
    from shared.logging import configure_logging

    configure_logging("node", level="INFO" if verbose else "ERROR")


@app.command()
def init(
    home: HomeOption,
    kit: Annotated[Path, typer.Option("--kit", help="The enrolment kit from the coordinator.")],
    mode: Annotated[NodeMode, typer.Option("--mode", help="What this node is for.")] = NodeMode.TRAINING,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a coordinator has approved.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make this node's keys and ask the centre to let it join; run it again to go on after an interruption."""
    from client_node import enrol
    from client_node.doctor import TRAINING_PACKAGES, missing_packages

    if mode is NodeMode.TRAINING and (missing := missing_packages(TRAINING_PACKAGES)):
        raise DependencyMissingError(
            f"This install can only analyse ({', '.join(missing)} missing): add --mode inference, or install "
            "hematovision[node]."
        )
    output = enrol.init(NodeHome(home), kit, mode=mode)
    if wait and output.state is not EnrolmentState.APPROVED:
        sys.stderr.write(f"Read this fingerprint to the coordinator and wait: {output.fingerprint}\n")
        output = enrol.wait_approved(NodeHome(home))
    then = "approved: start it with hematovision-node run" if output.state is EnrolmentState.APPROVED else "waiting"
    text = (
        f"Node {output.node_id} of {output.hospital_id} ({output.mode.value}) is {then}.\n"
        f"Fingerprint, to compare with the coordinator: {output.fingerprint}"
    )
    emit(output, as_json=as_json, text=text)


@app.command()
def doctor(home: HomeOption, as_json: JsonOption = False) -> None:
    """Check everything this node needs, with a remedy for each fault."""
    from client_node.doctor import examine

    output = examine(NodeHome(home))
    marks = {"ok": "ok     ", "warning": "remark ", "failed": "FAILED "}
    emit(output, as_json=as_json, text="\n".join(f"{marks[c.level]} {c.name}: {c.detail}" for c in output.checks))
    raise typer.Exit(output.exit_code)


@app.command("import")
def import_images(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of labelled images, or a label file.")],
    home: HomeOption,
    form: Annotated[str, typer.Option("--format", help="auto, imagefolder, csv, voc or synthetic.")] = "auto",
    labels: Annotated[Path | None, typer.Option("--labels", help="A label file elsewhere.")] = None,
    site: Annotated[str | None, typer.Option("--site", help="Take only this site's rows.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy labelled images into this node's catalogue. What cannot be read is skipped and named."""
    from client_node.datasets.importers import import_source
    from shared.progress import progress

    with progress("Importing") as reporter:
        output = import_source(home, source, form, reporter, labels=labels, site=site)
    lines = [f"{output.imported} imported, {len(output.skipped)} skipped."]
    lines += [f"  {cls.value}: {count}" for cls, count in output.classes.items()]
    if output.objects:
        lines.append("  marked in fields: " + ", ".join(f"{kind.value} {n}" for kind, n in output.objects.items()))
    lines += [f"  skipped {skipped.path}: {skipped.reason}" for skipped in output.skipped]
    emit(output, as_json=as_json, text="\n".join(lines))


@app.command()
def analyze(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Smears: folders, or images.")],
    home: HomeOption,
    send: Annotated[bool, typer.Option("--send", help="Put flagged smears into the outbox.")] = False,
    context: Annotated[Path | None, typer.Option("--context", help="Who the patient is, and the question.")] = None,
    priority: Annotated[Priority | None, typer.Option("--priority", help="Instead of what the flags ask for.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find, classify and count the white cells of smears; flag what a reader should see."""
    from client_node.analyze_command import analyze_and_send

    if (context is not None or priority is not None) and not send:
        raise UsageError("--context and --priority go with --send.")
    if send:
        _initialised(home)
    output = analyze_and_send(NodeHome(home), paths, send=send, context_file=context, priority=priority)
    emit(output.document(), as_json=as_json, text=output.text())


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option("--data", help="The folder that the paths in the label file start from.")],
    labels: Annotated[Path, typer.Option("--labels", help="The label file.")],
    home: Annotated[Path | None, typer.Option("--home", envvar=HOME_VARIABLE, help="The node's home folder.")] = None,
    model: Annotated[Path | None, typer.Option("--model", help="A model's folder, instead of the current one.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write tables, charts and a page into this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on exactly the rows of a label file."""
    from client_node.analysis.evaluation import figures, judge_csv
    from client_node.analysis.evaluation.folder import check_out, write_folder
    from shared.progress import progress

    if out is not None:
        check_out(out)
    with progress("Evaluating") as reporter:
        judgement = judge_csv(home, data, labels, model_dir=model, progress=reporter)
    output = figures(judgement) if out is None else write_folder(judgement, out)
    lines = [f"accuracy {output.accuracy:.3f}, macro-F1 {output.macro_f1:.3f} on {output.n} cells"]
    lines += [f"  {cls.value}: F1 {row.f1:.3f} of {row.support}" for cls, row in output.per_class.items()]
    lines += [f"  left out {skipped.path}: {skipped.reason}" for skipped in output.skipped]
    if out is not None:
        lines.append(f"Look at {out / 'index.html'}")
    emit(output, as_json=as_json, text="\n".join(lines))


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


@app.command()
def explain(
    smear: Annotated[str, typer.Argument(metavar="SMEAR", help="An analysed smear's id.")],
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell's id.")],
    home: HomeOption,
    cls: Annotated[str | None, typer.Option("--class", help="Why (not) this class? Else: the model's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the crop and its overlay here, as PNG.")] = None,
    method: Annotated[Method, typer.Option("--method", help="auto, gradcam (torch) or cam (without).")] = Method.AUTO,
    references: Annotated[int, typer.Option("--references", min=0, max=12, help="So many like cells too.")] = 0,
    signed: SignedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show where in a cell the model sees a class, and what the site's labelled cells say."""
    from client_node.explain_command import explain_cell

    place = NodeHome(home)
    output = explain_cell(place, smear, cell, cls=cls, out=out, method=method, count=references, signed=signed)
    emit(output.document(), as_json=as_json, text=output.text())


@app.command()
def references(
    smear: Annotated[str, typer.Argument(metavar="SMEAR", help="An analysed smear's id.")],
    cell: Annotated[str, typer.Argument(metavar="CELL", help="A cell's id.")],
    home: HomeOption,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many.")] = 6,
    signed: SignedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Name the site's labelled cells that a cell looks most like to the model."""
    from client_node.explain_command import references_of

    output = references_of(NodeHome(home), smear, cell, count=count, signed=signed)
    emit(output, as_json=as_json, text=output.text())


@app.command()
def teach(
    home: HomeOption,
    cls: Annotated[str | None, typer.Argument(metavar="CLASS", help="A class that the model does not know.")] = None,
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE…", help="Images of one such cell each.")] = None,
    forget: Annotated[str | None, typer.Option("--forget", metavar="CLASS", help="Take a class back.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Name what was taught.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add a class by five or more examples, without training; such a class is provisional."""
    from client_node.teach_command import forget_class, list_classes, teach_class

    if [cls is not None, forget is not None, show].count(True) != 1:
        raise UsageError("Name a class and its images, or use --list, or --forget CLASS.")
    place = NodeHome(home)
    if show:
        listed = list_classes(place)
        emit(listed, as_json=as_json, text=listed.text())
        return
    output = teach_class(place, cls, images or []) if cls is not None else forget_class(place, forget or "")
    _reload(home)
    emit(output, as_json=as_json, text=output.text())


@app.command("run")
def run_node(home: HomeOption, as_json: JsonOption = False) -> None:
    """Run this node in the foreground until it is told to stop (systemd starts it so)."""
    from client_node.agent import run_agent
    from shared.logging import configure_logging

    configure_logging("agent", json=as_json)
    run_agent(NodeHome(home))


@app.command()
def status(home: HomeOption, as_json: JsonOption = False) -> None:
    """Say how this node is and where its cases stand."""
    from client_node.status import node_status

    output = node_status(NodeHome(home))
    lines = [f"Node {output.node_id} of {output.hospital_id}: {'running' if output.running else 'stopped'}"]
    lines.append(f"Model: {output.model_version or 'none yet'}")
    if output.agent is not None:
        lines += [f"  {name}: {state}" for name, state in output.agent.processes.items()]
        lines += [f"  attention: {line}" for line in output.agent.attention]
    lines += [f"{case.case_id}: {case.state.value}{_why(case.problem)}" for case in output.cases[:20]]
    lines.append(f"Left the building: {output.ledger.cases} cases, {output.ledger.bytes_cases} bytes")
    lines.append(output.privacy)
    emit(output, as_json=as_json, text="\n".join(lines))


@app.command()
def ledger(
    home: HomeOption,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this case or run.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many of the newest entries.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show every byte that left the building, after checking that nobody changed the list."""
    from client_node.cases.ledger import Ledger

    _initialised(home)
    book = Ledger(home)
    verified, totals, entries = book.verify(), book.totals(), book.entries(subject=subject, limit=limit)
    document = {"verified": verified, "totals": totals, "entries": list(entries)}
    lines = [
        f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.kind:<15} {entry.subject}  {entry.what}  "
        + (entry.note if entry.kind == "refusal" else f"{entry.size} bytes")
        for entry in entries
    ]
    lines.append(f"{verified} entries, chain intact; {totals.cases} cases, {totals.bytes_cases} bytes")
    emit(document, as_json=as_json, text="\n".join(lines))


@model_app.command("rollback")
def model_rollback(home: HomeOption, as_json: JsonOption = False) -> None:
    """Go back to the model before the current one."""
    from client_node.models.update import rollback

    _initialised(home)
    decision = rollback(NodeHome(home))
    _reload(home)
    emit(decision, as_json=as_json, text=f"{decision.version} is left: {decision.reason}.")


@model_app.command("accept")
def model_accept(
    version: Annotated[str, typer.Argument(help="A version that this node holds.")],
    home: HomeOption,
    as_json: JsonOption = False,
) -> None:
    """Install a model that was held."""
    from client_node.models.update import accept

    _initialised(home)
    decision = accept(NodeHome(home), version)
    _reload(home)
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
        _reload(home)
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
    _reload(home)
    emit({"precision": now.value}, as_json=as_json, text=f"{now.value} analyses from now on.")


@model_app.command("view")
def model_view(home: HomeOption, as_json: JsonOption = False) -> None:
    """Without labels, bring this site's dye near to what the model knows, by the smears analysed here."""
    from client_node.models.trial import choose_without_labels

    _initialised(home)
    found = choose_without_labels(NodeHome(home))
    _reload(home)
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


def _initialised(home: Path) -> None:
    NodeHome(home).config()


def _reload(home: Path) -> None:
    from contextlib import suppress

    from client_node import ipc
    from shared.contracts.errors import ServiceUnavailableError

    with suppress(ServiceUnavailableError):  # not running: it loads the current model when it starts
        ipc.call(ipc.socket_path(home, "analyser"), {"op": "reload"}, timeout=180.0)


def _why(problem: str | None) -> str:
    return f" ({problem})" if problem else ""


def main() -> int:
    """Run the program; return its exit status."""
    return run(app)


if __name__ == "__main__":
    sys.exit(main())
