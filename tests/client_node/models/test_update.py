"""Promoted models on a node: verified, tried on its own cells, installed, held or refused, and the way back."""

import hashlib
import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlmodel import select

from client_node.analysis.model import load_model
from client_node.budget import Budget, Charge
from client_node.centre import Centre as CentreClient
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Kind, NewItem
from client_node.datasets.splits import Split
from client_node.doctor import examine
from client_node.home import NodeHome
from client_node.models import store, update
from client_node.models.update import accept, check_model, rollback
from server.accounts.schemas import COMMAND_LINE
from server.models import Run
from server.models.registry import NodeModel
from server.registry import service as registry
from server.registry.artefacts import artefact_key
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import NodeMode
from shared.contracts.errors import ConflictError, ModelInvalidError, NotFoundError, ServiceUnavailableError
from shared.contracts.laboratory import KNOWN_FILE, KnownLaboratories, KnownLaboratory
from shared.contracts.model_card import ArtefactRef, SignedModelCard
from shared.contracts.ontology import CellClass
from shared.contracts.privacy import PrivacyUnit
from shared.contracts.report import ModelDecision
from shared.contracts.training import (
    CalibrationSummary,
    EvaluateReply,
    SiteMetrics,
)
from shared.crypto.signing import SigningKey
from shared.vision.known import known_space
from tests.client_node.analysis.models import CLASSES, cell_image, make_model
from tests.client_node.world import Site, make_home, served
from tests.factories import Centre, make_centre

NEUTROPHIL, LYMPHOCYTE, EOSINOPHIL, IMMATURE = CLASSES
SWAPPED = (LYMPHOCYTE, NEUTROPHIL, EOSINOPHIL, IMMATURE)
"""The same outputs under other names: wrong for half of the cells."""
TURNED = (LYMPHOCYTE, EOSINOPHIL, IMMATURE, NEUTROPHIL)
"""Wrong for every cell."""


class Reloads:
    """Counts what the analyser is told, and fails as asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count, self.error = 0, error

    def __call__(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    made = make_centre(tmp_path / "centre")
    yield made
    made.runtime.database.dispose()


@pytest.fixture
def site(tmp_path: Path, centre: Centre) -> Iterator[Site]:
    node = centre.add_node("a")
    with served(centre) as url:
        home = make_home(tmp_path / "home", centre, node, url)
        with CentreClient.of(home) as client:
            yield Site(home, client, centre)


def promote(
    site: Site,
    folder: Path,
    version: str,
    *,
    classes: tuple[CellClass, ...] = CLASSES,
    key: SigningKey | None = None,
    stored: bytes | None = None,
    known: bytes | None = None,
) -> None:
    """Register a version at the centre as a run does, and promote it."""
    runtime = site.centre.runtime
    made = make_model(folder / version, version)
    onnx = (made / "model.onnx").read_bytes()
    plain = load_model(made).card
    files = {"model.onnx": onnx} if known is None else {"model.onnx": onnx, KNOWN_FILE: known}
    artefacts = tuple(
        ArtefactRef(name=name, sha256=hashlib.sha256(body).hexdigest(), size=len(body)) for name, body in files.items()
    )
    changed = {"recipe": plain.recipe.model_copy(update={"classes": classes}), "artefacts": artefacts}
    card = plain.model_copy(update=changed)
    signer = key or runtime.vault.release_key()
    signed = SignedModelCard(card=card, signature=signer.sign(canonical_bytes(card)), key_id=signer.public.key_id)
    for name, body in {**files, "model.onnx": stored if stored is not None else onnx}.items():
        runtime.store.put(artefact_key(version, name), body)
    found = SiteMetrics(n=50, loss=0.4, accuracy=0.9, macro_f1=0.9)
    reply = EvaluateReply(
        candidate=found, current=None, calibration=CalibrationSummary(temperature=1, conformal_quantile=0.9), seconds=1
    )
    with runtime.database.session() as session:
        if session.get(Run, card.run_key) is None:
            recipe = card.recipe.model_dump(mode="json")
            session.add(
                Run(id=card.run_key, recipe=recipe, rounds=1, min_sites=1, round_deadline_seconds=60, created_by="cli")
            )
            session.flush()
        registry.register(session, signed, {"a": reply})
        registry.promote(session, COMMAND_LINE, version)


def add_cells(home: NodeHome, *, each: int = 8, split: Split = Split.VAL) -> None:
    with Catalogue(home.path).writing() as writer:
        for cls in CLASSES:
            for seed in range(each):
                out = io.BytesIO()
                Image.fromarray(cell_image(cls, seed)).save(out, "PNG")
                sha256 = writer.put_image(out.getvalue()).sha256
                writer.add([NewItem(sha256, Kind.CELL, None, cls, "own", "a", f"g{cls}{seed}", split)])


def installed(site: Site, folder: Path, version: str) -> None:
    """Promote a version, and let the node have it in use already."""
    promote(site, folder, version)
    make_model(site.home.model(version), version)
    store.note(site.home, ModelDecision(version=version, decision="installed", reason="good"), reported=True)
    store.make_current(site.home, version)


def told(site: Site) -> list[tuple[str, str]]:
    """Version and decision, as the centre heard them."""
    with site.centre.runtime.database.session(read_only=True) as session:
        rows = session.exec(select(NodeModel)).all()
        return [(row.version, row.decision) for row in sorted(rows, key=lambda row: row.id or 0)]


def change_policy(home: NodeHome, before: str, after: str) -> None:
    text = home.policy_file.read_text()
    assert before in text
    home.policy_file.write_text(text.replace(before, after))


def test_nothing_promoted_is_nothing_to_do(site: Site) -> None:
    assert check_model(site.home, site.client, reload=Reloads()) is None


def test_first_model_is_tried_calibrated_and_installed_once(site: Site, tmp_path: Path) -> None:
    add_cells(site.home)
    promote(site, tmp_path, "hv-1")
    reload = Reloads()
    decision = check_model(site.home, site.client, reload=reload)
    assert decision is not None
    assert (decision.decision, decision.accuracy, decision.n) == ("installed", 1.0, 32)
    model = load_model(site.home.model("hv-1"))
    assert (store.current_version(site.home), model.adapter.cells) == ("hv-1", 32)
    assert check_model(site.home, site.client, reload=reload) is None
    assert (reload.count, told(site), site.told("decision")) == (1, [("hv-1", "installed")], ["hv-1"])


@pytest.mark.parametrize(("each", "promised"), [(0, None), (4, None), (8, 32 / 33)])
def test_sets_are_made_for_the_coverage_that_the_site_asks_for(
    site: Site, tmp_path: Path, each: int, promised: float | None
) -> None:
    change_policy(site.home, "coverage = 0.95", "coverage = 0.99")
    add_cells(site.home, each=each)
    promote(site, tmp_path, "hv-1")
    check_model(site.home, site.client, reload=Reloads())
    adapter = load_model(site.home.model("hv-1")).adapter
    assert (adapter.level, adapter.promised) == (0.99, promised)
    assert adapter.conformal_quantile == pytest.approx(0.99)  # of an old card, 0.95 for 95 %: the tail shrinks


def test_model_that_is_worse_here_is_held_until_a_person_accepts(site: Site, tmp_path: Path) -> None:
    add_cells(site.home)
    installed(site, tmp_path, "hv-1")
    promote(site, tmp_path, "hv-2", classes=SWAPPED)
    reload = Reloads()
    held = check_model(site.home, site.client, reload=reload)
    assert held is not None
    assert (held.decision, held.accuracy, held.n) == ("held", 0.5, 32)
    assert "the model in use has 1.000" in held.reason
    assert (store.current_version(site.home), reload.count) == ("hv-1", 0)
    assert check_model(site.home, site.client, reload=reload) is None
    accept(site.home, "hv-2")
    assert store.current_version(site.home) == "hv-2"
    with pytest.raises(ConflictError):
        accept(site.home, "hv-2")
    assert check_model(site.home, site.client, reload=reload) is None
    assert told(site) == [("hv-2", "held"), ("hv-2", "installed")]


def test_first_model_no_better_than_chance_is_held(site: Site, tmp_path: Path) -> None:
    add_cells(site.home)
    promote(site, tmp_path, "hv-1", classes=TURNED)
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert (decision.decision, decision.accuracy) == ("held", 0.0)
    assert store.current_version(site.home) is None


def test_policy_that_asks_a_person_holds_a_good_model(site: Site, tmp_path: Path) -> None:
    change_policy(site.home, 'acceptance = "automatic"', 'acceptance = "hold"')
    promote(site, tmp_path, "hv-1")
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert decision.decision == "held"
    assert store.current_version(site.home) is None


def test_figures_stay_here_where_the_policy_allows_no_evaluation(site: Site, tmp_path: Path) -> None:
    change_policy(site.home, '"evaluate", ', "")
    add_cells(site.home)
    promote(site, tmp_path, "hv-1")
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert (decision.decision, decision.accuracy, decision.n) == ("installed", None, None)
    assert "1.000" not in decision.reason


@pytest.mark.parametrize("why", ["policy", "record", "damaged record", "another run"])
def test_figures_stay_here_where_the_model_was_trained_privately(site: Site, tmp_path: Path, why: str) -> None:
    charge = Charge(
        run_key="run-9" if why == "another run" else "run-1", round=1, unit=PrivacyUnit.IMAGE, noise_multiplier=1.0,
        sample_rate=0.5, steps=2, centre_noise_multiplier=8.0, run_epsilon=3.0, run_delta=1e-5, released=True,
    )  # fmt: skip
    if why == "policy":
        change_policy(site.home, 'least_privacy = "none"', 'least_privacy = "dp-image"')
    else:
        text = "{" if why == "damaged record" else Budget(charges=(charge,), epsilon=3.0, delta=1e-5).model_dump_json()
        site.home.budget.write_text(text)
    add_cells(site.home)
    promote(site, tmp_path, "hv-1")
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert decision.decision == "installed"
    tells = why == "another run"
    assert (decision.accuracy, decision.n) == ((1.0, 32) if tells else (None, None))
    assert ("1.000" in decision.reason) is tells


@pytest.mark.parametrize("mode", list(NodeMode))
def test_node_without_own_cells_accepts_on_the_signature_and_says_so(tmp_path: Path, mode: NodeMode) -> None:
    centre = make_centre(tmp_path / "centre")
    node = centre.add_node("a")
    with served(centre) as url:
        home = make_home(tmp_path / "home", centre, node, url, mode=mode)
        with CentreClient.of(home) as client:
            promote(Site(home, client, centre), tmp_path, "hv-1")
            decision = check_model(home, client, reload=Reloads())
    centre.runtime.database.dispose()
    assert decision is not None
    assert (decision.decision, decision.n) == ("installed", None)
    assert "without own validation data" in decision.reason
    assert decision.reason.startswith("inference-only") is (mode is NodeMode.INFERENCE)
    assert load_model(home.model("hv-1")).adapter.cells == 0


def test_a_node_without_labels_gets_what_the_model_knows(tmp_path: Path) -> None:
    centre = make_centre(tmp_path / "centre")
    node = centre.add_node("a")
    cells = np.random.default_rng(0).normal(0.0, 1.0, (60, 3)).astype(np.float32)
    body = KnownLaboratories(laboratories=(KnownLaboratory(space=known_space(cells)),)).model_dump_json().encode()
    with served(centre) as url:
        home = make_home(tmp_path / "home", centre, node, url, mode=NodeMode.INFERENCE)
        with CentreClient.of(home) as client:
            promote(Site(home, client, centre), tmp_path, "hv-1", known=body)
            decision = check_model(home, client, reload=Reloads())
    centre.runtime.database.dispose()
    assert decision is not None
    assert decision.decision == "installed"
    model = load_model(home.model("hv-1"))
    assert model.known is not None
    assert (model.adapter.space, model.compared) == (None, "the laboratory that taught the model")
    assert (model.adapter.level, model.adapter.promised) == (0.95, None)
    (check,) = [one for one in examine(home).checks if one.name == "model"]
    assert check.level == "warning"
    assert "measured against the laboratory that taught the model" in check.detail
    assert "19 validation cells vouch for it" in check.detail
    (home.model("hv-1") / KNOWN_FILE).write_text('{"laboratories": 7}')
    with pytest.raises(ModelInvalidError, match="install the model again"):
        load_model(home.model("hv-1"))


def test_model_signed_by_another_key_is_refused(site: Site, tmp_path: Path) -> None:
    promote(site, tmp_path, "hv-1", key=SigningKey.generate())
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert decision.decision == "refused"
    assert not (site.home.model("hv-1") / "model.onnx").exists()
    assert check_model(site.home, site.client, reload=Reloads()) is None
    assert told(site) == [("hv-1", "refused")]
    with pytest.raises(NotFoundError):
        accept(site.home, "hv-1")


def test_release_key_that_the_policy_does_not_trust_is_refused(site: Site, tmp_path: Path) -> None:
    key_id = site.centre.runtime.vault.release_key().public.key_id
    change_policy(site.home, key_id, "0123456789abcdef")
    promote(site, tmp_path, "hv-1")
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert decision.decision == "refused"


def test_damaged_file_is_refused_and_looked_at_again_later(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(site, tmp_path, "hv-1", stored=b"damaged")
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert decision.decision == "refused"
    monkeypatch.setattr(update, "_TRY_AGAIN", timedelta(0))
    assert check_model(site.home, site.client, reload=Reloads()) == decision
    assert told(site) == [("hv-1", "refused")]  # the same is told once
    site.centre.store.put(artefact_key("hv-1", "model.onnx"), (tmp_path / "hv-1" / "model.onnx").read_bytes())
    mended = check_model(site.home, site.client, reload=Reloads())
    assert mended is not None
    assert mended.decision == "installed"
    assert told(site) == [("hv-1", "refused"), ("hv-1", "installed")]


def test_signed_file_that_is_no_model_is_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(site, tmp_path, "hv-1", classes=(NEUTROPHIL, LYMPHOCYTE))  # the card names fewer outputs than there are
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert (decision.decision, decision.reason) == ("refused", "The model does not run on this node.")


def test_rolled_back_model_does_not_come_back_and_a_second_step_goes_further(site: Site, tmp_path: Path) -> None:
    for version in ("hv-1", "hv-2", "hv-3"):
        installed(site, tmp_path, version)
    assert rollback(site.home).version == "hv-3"
    assert store.current_version(site.home) == "hv-2"
    assert check_model(site.home, site.client, reload=Reloads()) is None
    assert told(site)[-1] == ("hv-3", "rolled_back")
    rollback(site.home)
    assert store.current_version(site.home) == "hv-1"
    with pytest.raises(NotFoundError):
        rollback(site.home)
    accept(site.home, "hv-3")
    assert store.current_version(site.home) == "hv-3"


def test_centre_that_goes_back_takes_the_node_along(site: Site, tmp_path: Path) -> None:
    for version in ("hv-1", "hv-2"):
        installed(site, tmp_path, version)
    with site.centre.runtime.database.session() as session:
        registry.rollback(session, COMMAND_LINE, reason="worse elsewhere")
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert (decision.version, decision.decision) == ("hv-1", "installed")
    assert store.current_version(site.home) == "hv-1"


def test_decision_that_could_not_be_told_is_told_later(site: Site, tmp_path: Path) -> None:
    for version in ("hv-1", "hv-2"):
        installed(site, tmp_path, version)
    rollback(site.home)
    with (
        CentreClient(  # nobody listens there
            site.home, url="http://127.0.0.1:9", server_id="x", node_id="y", key=SigningKey.generate()
        ) as nobody,
        pytest.raises(ServiceUnavailableError),
    ):
        check_model(site.home, nobody, reload=Reloads())
    assert [decision.version for decision in store.unreported(site.home)] == ["hv-2"]
    assert check_model(site.home, site.client, reload=Reloads()) is None
    assert store.unreported(site.home) == []
    assert told(site) == [("hv-2", "rolled_back")]


def test_analyser_that_is_not_running_does_not_stop_an_installation(site: Site, tmp_path: Path) -> None:
    promote(site, tmp_path, "hv-1")
    decision = check_model(site.home, site.client, reload=Reloads(ServiceUnavailableError("not running")))
    assert decision is not None
    assert (decision.decision, store.current_version(site.home)) == ("installed", "hv-1")


def test_analyser_that_cannot_load_the_model_keeps_the_one_before(site: Site, tmp_path: Path) -> None:
    installed(site, tmp_path, "hv-1")
    promote(site, tmp_path, "hv-2")
    decision = check_model(site.home, site.client, reload=Reloads(ModelInvalidError("cannot be loaded")))
    assert decision is not None
    assert (decision.decision, store.current_version(site.home)) == ("refused", "hv-1")
    assert told(site) == [("hv-2", "refused")]


@pytest.mark.parametrize("lost", ["installation", "decision", "both"])
def test_node_killed_while_installing_finishes_at_the_next_check(site: Site, tmp_path: Path, lost: str) -> None:
    installed(site, tmp_path, "hv-1")
    promote(site, tmp_path, "hv-2")
    check_model(site.home, site.client, reload=Reloads())
    if lost in ("installation", "both"):
        store.make_current(site.home, "hv-1")
    if lost in ("decision", "both"):
        (site.home.model("hv-2") / store.DECISION).unlink()
    decision = check_model(site.home, site.client, reload=Reloads())
    assert decision is not None
    assert (decision.version, decision.decision) == ("hv-2", "installed")
    assert store.current_version(site.home) == "hv-2"
    assert store.unreported(site.home) == []


def test_old_versions_are_dropped_but_their_decisions_stay(tmp_path: Path) -> None:
    home, versions = NodeHome(tmp_path), [f"hv-{number}" for number in range(1, 7)]
    for version in versions:
        home.model(version).mkdir(parents=True)
        (home.model(version) / store.CARD).write_text("{}")
        store.note(home, ModelDecision(version=version, decision="installed", reason="good"))
        store.make_current(home, version)
    store.prune(home)
    assert [store.present(home, version) for version in versions] == [False, False, True, True, True, True]
    assert all(store.decided(home, version) for version in versions)
