"""A base that a node lacks: fetched once from a real centre over a real store, verified, or refused with a reason."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from safetensors.torch import save_file
from sqlmodel import select

from client_node.bases import fetch_wished
from client_node.cases.ledger import Ledger
from client_node.centre import Centre
from client_node.home import NodeHome
from client_node.policy import load_policy
from client_node.status import only_agent
from client_node.training.base import ensure_base
from deploy.services.object_store import StoreAddress
from server.federation import bases
from server.models import AuditEntry
from shared.contracts.enrolment import NodeMode
from shared.contracts.errors import ModelInvalidError, NotFoundError, PolicyRefusedError, WeightsMissingError
from shared.contracts.training import EvaluateRequest, Recipe
from shared.vision import backbones
from shared.vision.weights import FOLDER_VARIABLE, add_weights, available, base_sha256, import_timm, whole_base
from tests.client_node.centre import LiveCentre, live_centre
from tests.client_node.nodes import joined
from tests.client_node.training.site import CLASSES

NAME = "mobilenetv3_large_100"
ENTRY = backbones.get(NAME)


@pytest.fixture
def centre(tmp_path: Path, object_store: StoreAddress) -> Iterator[LiveCentre]:
    with live_centre(tmp_path / "server", object_store) as made:
        yield made


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EvaluateRequest, Path]]:
    """A request whose base only the centre has, and the file of that base; the node's own folder is empty."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "centre-weights"))
    state = {key: value for key, value in import_timm().create_model(NAME).state_dict().items() if "classif" not in key}
    save_file(state, tmp_path / "published.safetensors")
    published = tmp_path / "published.safetensors"
    add_weights(ENTRY, published, sha256(published.read_bytes()).hexdigest())
    base_sha256.cache_clear()
    named = base_sha256(ENTRY)
    whole = tmp_path / "whole.safetensors"
    whole.write_bytes(whole_base(ENTRY))
    base_sha256.cache_clear()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "node-weights"))
    recipe = Recipe(classes=CLASSES, backbone=NAME)
    yield EvaluateRequest(run_key="run-1", base_sha256=named, recipe=recipe, participants=3), whole
    base_sha256.cache_clear()


@contextmanager
def agent(home: NodeHome) -> Iterator[list[int]]:
    """Do the agent's part of it; yield how many wishes it has looked after."""
    ended, seen = threading.Event(), [0]

    def work() -> None:
        with Centre.of(home) as client:
            while not ended.wait(0.05):
                seen[0] += len(list((home.training / "bases").glob("*.wish")))
                fetch_wished(home, client)

    thread = threading.Thread(target=work)
    with only_agent(home):
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()


def _ensure(home: NodeHome, request: EvaluateRequest) -> None:
    ensure_base(home.path, load_policy(home), request, stopping=lambda: False)


def _audited(centre: LiveCentre) -> list[AuditEntry]:
    with centre.runtime.database.session(read_only=True) as session:
        return list(session.exec(select(AuditEntry).where(AuditEntry.action == "federation.base_fetched")).all())


def test_base_is_fetched_once_verified_and_written_down(
    centre: LiveCentre, tmp_path: Path, request_of: tuple[EvaluateRequest, Path]
) -> None:
    request, whole = request_of
    bases.keep(centre.runtime.store, request.base_sha256, whole)
    bases.keep(centre.runtime.store, request.base_sha256, tmp_path / "not read, for it is there")
    home = joined(centre, tmp_path / "home", mode=NodeMode.TRAINING)
    with pytest.raises(WeightsMissingError, match="weights add"):  # nobody is there to fetch
        _ensure(home, request)
    with agent(home) as seen:
        _ensure(home, request)
        assert (available(ENTRY), base_sha256(ENTRY)) == ("folder", request.base_sha256)
        wishes = seen[0]
        _ensure(home, request)
    assert seen[0] == wishes > 0
    assert len(_audited(centre)) == 1
    [entry] = [line for line in Ledger(home).entries() if line.kind == "base"]
    assert (entry.subject, entry.what, entry.size, entry.sha256) == ("run-1", NAME, 0, request.base_sha256)
    assert list((home.training / "bases").iterdir()) == []


def test_base_of_another_hash_is_not_kept(
    centre: LiveCentre, tmp_path: Path, request_of: tuple[EvaluateRequest, Path]
) -> None:
    request, whole = request_of
    other = request.model_copy(update={"base_sha256": "1" * 64})
    bases.keep(centre.runtime.store, "1" * 64, whole)
    home = joined(centre, tmp_path / "home", mode=NodeMode.TRAINING)
    with agent(home), pytest.raises(ModelInvalidError, match="not those that it named"):
        _ensure(home, other)
    assert available(ENTRY) is None
    assert list((home.training / "bases").iterdir()) == []


def test_base_that_the_centre_lacks_or_the_policy_forbids_is_refused(
    centre: LiveCentre, tmp_path: Path, request_of: tuple[EvaluateRequest, Path]
) -> None:
    request, whole = request_of
    home = joined(centre, tmp_path / "home", mode=NodeMode.TRAINING)
    with agent(home), pytest.raises(NotFoundError, match=r"keeps no base .* weights add"):
        _ensure(home, request)
    bases.keep(centre.runtime.store, request.base_sha256, whole)
    text = home.policy_file.read_text()
    home.policy_file.write_text(text.replace("most_megabytes = 256", "most_megabytes = 1"))
    with agent(home), pytest.raises(NotFoundError, match="1 MB of tensors"):
        _ensure(home, request)
    home.policy_file.write_text(text.replace("fetch_bases = true", "fetch_bases = false"))
    with agent(home) as seen, pytest.raises(PolicyRefusedError, match="does not let it fetch"):
        _ensure(home, request)
    assert seen == [0]
    assert Ledger(home).entries()[-1].kind == "refusal"
    assert available(ENTRY) is None
