"""`hematovision-node`: what a hospital's IT calls.

Imports inside the commands are on purpose: ``--help`` and ``status`` must not wait for imaging and model libraries.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client_node import model_cli, policy_cli
from client_node.analysis.method import Method
from client_node.commands import HomeOption, initialised, reload
from client_node.home import HOME_VARIABLE, NodeHome
from shared.cli import JsonOption, emit, run
from shared.contracts.case import Priority
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.errors import DependencyMissingError, UsageError

app = typer.Typer(name="hematovision-node", help="Run a hospital's node of Hematovision.", add_completion=False)
app.add_typer(model_cli.model_app, name="model")
app.add_typer(policy_cli.policy_app, name="policy")
app.add_typer(policy_cli.rules_app, name="rules")
app.add_typer(model_cli.weights_app, name="weights")

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
    own_names: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=CLASS", help="What a label of yours means; remembered, repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy labelled images into this node's catalogue. What cannot be read is skipped and named."""
    from client_node.datasets.importers import import_source
    from client_node.datasets.importers.names import advice, parse_names
    from shared.progress import progress

    names = parse_names(own_names or ())
    with progress("Importing") as reporter:
        output = import_source(home, source, form, reporter, labels=labels, site=site, names=names)
    lines = [f"{output.imported} imported, {len(output.skipped)} skipped."]
    lines += [f"  {cls.value}: {count}" for cls, count in output.classes.items()]
    if output.objects:
        lines.append("  marked in fields: " + ", ".join(f"{kind.value} {n}" for kind, n in output.objects.items()))
    lines += [f"  {line}" for line in advice(output.skipped)]
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
        initialised(home)
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
    reload(home)
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
    lines += [
        f"{one.case_id}: glass slide asked for, smear {one.smear_id or 'unknown'}. {one.reason}" for one in output.glass
    ]
    lines.append(f"Left the building: {output.ledger.cases} cases, {output.ledger.bytes_cases} bytes")
    lines.append(output.privacy)
    emit(output, as_json=as_json, text="\n".join(lines))


@app.command()
def glass(
    home: HomeOption,
    sent: Annotated[str | None, typer.Option("--sent", help="Note that this case's slide is on its way.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the glass slides that readers ask for: smears that could not be read from their images."""
    from client_node.cases.glass import glass_asked, note_sent

    initialised(home)
    if sent is not None:
        note_sent(home, sent)
    asked = glass_asked(home)
    lines = [
        f"{one.case_id}  smear {one.smear_id or 'unknown'}  asked {one.asked_at:%Y-%m-%d %H:%M} UTC by {one.reader}  "
        f"{one.reason}  letter: reports/{one.folder}/hospital/report.pdf"
        for one in asked
    ]
    emit(
        [one.model_dump(mode="json") for one in asked],
        as_json=as_json,
        text="\n".join(lines) or "No slide is asked for.",
    )


@app.command()
def ledger(
    home: HomeOption,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this case or run.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many of the newest entries.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show every byte that left the building, after checking that nobody changed the list."""
    from client_node.cases.ledger import Ledger

    initialised(home)
    book = Ledger(home)
    verified, totals, entries = book.verify(), book.totals(), book.entries(subject=subject, limit=limit)
    document = {"verified": verified, "totals": totals, "entries": list(entries)}
    lines = [
        f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.kind:<15} {entry.subject}  {entry.what}  "
        + (entry.note if entry.kind in ("refusal", "base") else f"{entry.size} bytes")
        for entry in entries
    ]
    lines.append(f"{verified} entries, chain intact; {totals.cases} cases, {totals.bytes_cases} bytes")
    emit(document, as_json=as_json, text="\n".join(lines))


def _why(problem: str | None) -> str:
    return f" ({problem})" if problem else ""


def main() -> int:
    """Run the program; return its exit status."""
    return run(app)


if __name__ == "__main__":
    sys.exit(main())
