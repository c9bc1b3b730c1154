"""``hematovision-server hospital``: kits and decisions at the command line."""

from pathlib import Path
from typing import Annotated

import typer

from server.commands import COMMAND_LINE, HomeOption, JsonOption, emit, open_runtime
from server.hospitals import service
from shared.contracts.errors import ConflictError
from shared.crypto.pki import write_private

app = typer.Typer(help="Hospitals and their nodes.")

HospitalId = Annotated[str, typer.Argument(metavar="ID", help="Short id of the hospital, e.g. st-anna.")]
NodeId = Annotated[str, typer.Argument(metavar="NODE_ID")]


@app.command()
def enrol(
    hospital_id: HospitalId,
    name: Annotated[str, typer.Option("--name", help="The hospital's name, as it stands on reports.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the kit; it holds a secret (mode 0600).")],
    expires_hours: Annotated[int, typer.Option("--expires-hours", min=1, max=2160)] = 72,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a one-time kit with which a hospital's node joins."""
    if out.exists():
        raise ConflictError(f"{out} exists already; choose another file with --out.")
    with open_runtime(home) as runtime, runtime.database.session() as session:
        kit = service.enrol(
            session, runtime, actor=COMMAND_LINE, hospital_id=hospital_id, name=name, expires_hours=expires_hours
        )
        # Before the commit: a kit that could not be written was never made.
        out.parent.mkdir(parents=True, exist_ok=True)
        write_private(out, kit.model_dump_json(indent=2).encode())
    result = {"hospital_id": hospital_id, "kit": str(out), "expires_at": kit.expires_at.isoformat()}
    text = f"Kit for {name}: {out}\nGood for one node until {kit.expires_at:%Y-%m-%d %H:%M} UTC. Hand it over safely."
    emit(result | {"server_id": kit.server_id}, as_json=as_json, text=text)


@app.command()
def approve(
    node_id: NodeId,
    fingerprint: Annotated[str | None, typer.Option("--fingerprint", help="What the hospital reads out.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a node in after comparing its fingerprint with the hospital."""
    with open_runtime(home) as runtime, runtime.database.session() as session:
        state = service.approve(session, principal=COMMAND_LINE, node_id=node_id, fingerprint=fingerprint)
    emit({"node_id": node_id, "state": state.value}, as_json=as_json, text=f"Node {node_id}: {state.value}.")


@app.command()
def reject(node_id: NodeId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Turn a waiting node away."""
    with open_runtime(home) as runtime, runtime.database.session() as session:
        state = service.reject(session, principal=COMMAND_LINE, node_id=node_id)
    emit({"node_id": node_id, "state": state.value}, as_json=as_json, text=f"Node {node_id}: {state.value}.")


@app.command()
def revoke(node_id: NodeId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Shut an approved node out at once."""
    with open_runtime(home) as runtime, runtime.database.session() as session:
        state = service.revoke(session, principal=COMMAND_LINE, node_id=node_id)
    emit({"node_id": node_id, "state": state.value}, as_json=as_json, text=f"Node {node_id}: {state.value}.")


@app.command()
def tolerance(
    hospital_id: HospitalId,
    share: Annotated[float | None, typer.Argument(help="Share, 0 to 0.02; the network's if left out.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a hospital may lose by a model, in accuracy and in any class's recall, before the gate blocks it."""
    with open_runtime(home) as runtime, runtime.database.session() as session:
        service.set_tolerance(session, COMMAND_LINE, hospital_id, share)
    said = "the network's tolerance" if share is None else f"a tolerance of {share:g}"
    emit({"hospital_id": hospital_id, "gate_tolerance": share}, as_json=as_json, text=f"{hospital_id} has {said}.")


@app.command("list")
def list_hospitals(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List hospitals and their nodes."""
    with open_runtime(home) as runtime, runtime.database.session(read_only=True) as session:
        hospitals = service.list_hospitals(session, COMMAND_LINE)
    lines = []
    for hospital in hospitals:
        lines.append(f"{hospital.id}  {hospital.name}")
        lines += [
            f"  {node.id}  {node.state.value}  {node.mode.value}  {node.fingerprint}  "
            f"{'online' if node.online else 'offline'}"
            for node in hospital.nodes
        ]
    emit({"hospitals": hospitals}, as_json=as_json, text="\n".join(lines) or "No hospital is enrolled yet.")
