"""The centre and the hospitals of a simulation: real keys, database, object store and catalogues, below one folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client_node.datasets.labelled import LabelledCell
from client_node.datasets.parts import write_part
from client_node.home import NodeHome
from deploy.services.object_store import StoreAddress
from server.accounts.schemas import COMMAND_LINE
from server.db.migrate import upgrade
from server.federation import checkpoints, repository, service
from server.federation.schemas import RunPlan, RunView
from server.federation.start import start_tensors
from server.models import Hospital, Node
from server.runtime import Runtime, build_runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.enrolment import HEARTBEAT_PROTOCOL, EnrolmentState, Heartbeat, LedgerTotals, NodeMode
from shared.contracts.errors import NotFoundError
from shared.contracts.training import Recipe
from shared.crypto.pki import write_private
from shared.crypto.signing import SigningKey
from shared.storage import S3Store

_POLICY = "[training]\nleast_participants = 1\nleast_examples = 1\nmost_epochs = 50\ntell_laboratory = false\n"
"""What a simulated hospital allows: all that a simulation may ask."""

_BEAT = Heartbeat(
    software="simulation",
    mode=NodeMode.TRAINING,
    model_version=None,
    processes={},
    ledger=LedgerTotals(),
    outbox=0,
    protocol=HEARTBEAT_PROTOCOL,
)
"""A simulated hospital's trainer is this software: its tensors travel in the same form as a real one's."""


@contextmanager
def centre(home: Path, store: StoreAddress, *, bucket: str) -> Iterator[Runtime]:
    """Yield a centre that is made anew in ``home`` and keeps its objects in ``bucket``."""
    FileVault.create(home / "keys")
    settings = ServerSettings.load(
        home=home,
        store_endpoint=store.endpoint,
        store_access_key=store.access_key,
        store_secret_key=store.secret_key,
        store_bucket=bucket,
    )
    upgrade(settings.effective_database_url)
    runtime = build_runtime(settings)
    if isinstance(runtime.store, S3Store):
        runtime.store.ensure_bucket()
    try:
        yield runtime
    finally:
        runtime.database.dispose()


def join(
    runtime: Runtime, source: Path, parts: Sequence[Sequence[LabelledCell]], *, work: Path, cache: Path
) -> dict[int, Path]:
    """Make a hospital with an approved node of each part below ``work``; return the homes by node id.

    Images stay where they are: in the home ``source`` of the catalogue. A frozen trunk's maps of a cell are kept once,
    in ``cache``, whichever hospital has it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    homes: dict[int, Path] = {}
    for number, cells in enumerate(parts, start=1):
        home, name = work / f"hospital-{number:04d}", f"hospital-{number:04d}"
        write_part(source, home, [cell.hash for cell in cells])
        key = SigningKey.generate()
        NodeHome(home).keys.mkdir(mode=0o700, exist_ok=True)
        write_private(NodeHome(home).signing_key, key.to_pem())
        NodeHome(home).policy_file.write_text(_POLICY)
        (home / "training").mkdir(exist_ok=True)
        (home / "training" / "cache").symlink_to(cache.resolve())
        _enter(runtime, name, number, key)
        homes[number] = home
    return homes


def _enter(runtime: Runtime, name: str, number: int, key: SigningKey) -> None:
    with runtime.database.session() as session:
        session.add(Hospital(id=name, name=f"Simulated hospital {number}"))
        session.flush()
        session.add(
            Node(
                id=f"node-{name}",
                hospital_id=name,
                mode=NodeMode.TRAINING,
                state=EnrolmentState.APPROVED,
                signing_key=key.public.to_base64(),
                envelope_key="none: a simulated hospital sends no case",
                flower_key="none: nothing of a simulation goes through Flower",
                fingerprint=key.public.key_id,
                software="simulation",
                heartbeat=_BEAT.model_dump(mode="json"),
                flower_node_id=str(number),
            )
        )


def prepared_run(runtime: Runtime, plan: RunPlan) -> str:
    """Write a run as a coordinator launches it, and what it starts from, as its launch does; return its key."""
    with runtime.database.session() as session:
        run_id = service.start_run(session, COMMAND_LINE, plan)
        run = repository.get(session, run_id)
        if run is None:
            raise NotFoundError("There is no such run.")
        recipe = Recipe.model_validate(run.recipe)
    start = start_tensors(runtime, recipe)
    checkpoints.save(runtime.store, run_id, 0, start.tensors)
    with runtime.database.session() as session:
        run = repository.get(session, run_id)
        if run is not None:
            run.base_sha256, run.parent = start.base_sha256, start.parent
    return run_id


def seen(runtime: Runtime, run_id: str) -> RunView:
    """Return a run as its page shows it."""
    with runtime.database.session(read_only=True) as session:
        return service.run_view(session, COMMAND_LINE, run_id)
