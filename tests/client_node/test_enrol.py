"""A node joins by a one-time kit, and every way a kit can be wrong is told apart."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from client_node import enrol
from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.errors import (
    ConfigError,
    ConflictError,
    KitExpiredError,
    KitInvalidError,
    KitUsedError,
    NotApprovedError,
    ServiceUnavailableError,
)
from tests.client_node.centre import LiveCentre, live_centre

MODE = NodeMode.TRAINING


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[LiveCentre]:
    with live_centre(tmp_path / "server") as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return NodeHome(tmp_path / "home")


def test_init_makes_private_keys_here_and_waits_for_approval(
    centre: LiveCentre, home: NodeHome, tmp_path: Path
) -> None:
    said = enrol.init(home, centre.kit(tmp_path), mode=NodeMode.INFERENCE)
    assert (said.state, said.mode, said.hospital_id) == (EnrolmentState.PENDING, NodeMode.INFERENCE, "a")
    for name in ("signing.pem", "envelope.pem", "flower", "pseudonym.key", "identity.key"):
        assert (home.keys / name).stat().st_mode & 0o777 == 0o600
    assert home.config().server_url == centre.url
    assert [entry.kind for entry in Ledger(home).entries()] == ["enrolment"]
    centre.approve(said.node_id, said.fingerprint)
    assert enrol.wait_approved(home, poll=0.01).state is EnrolmentState.APPROVED
    assert home.config().superlink == "127.0.0.1:9092"


def test_init_again_goes_on_with_the_same_keys_until_approved(
    centre: LiveCentre, home: NodeHome, tmp_path: Path
) -> None:
    kit = centre.kit(tmp_path)
    first = enrol.init(home, kit, mode=MODE)
    home.config_file.unlink()  # as after a crash between the centre's answer and its being written
    assert enrol.init(home, kit, mode=MODE) == first
    assert enrol.init(home, kit, mode=MODE) == first
    centre.approve(first.node_id, first.fingerprint)
    enrol.enrolment_status(home)
    with pytest.raises(ConflictError, match="already"):
        enrol.init(home, kit, mode=MODE)


def test_init_resumes_after_a_lost_network(centre: LiveCentre, home: NodeHome, tmp_path: Path) -> None:
    kit = centre.kit(tmp_path)
    settings = centre.runtime.settings
    assert settings.public_url == centre.url
    with live_centre(tmp_path / "gone") as other:
        lost = other.kit(tmp_path, "lost")
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        enrol.init(home, lost, mode=MODE)
    keys = home.signing_key.read_bytes()
    assert not home.initialised
    with pytest.raises(ConflictError, match="Another enrolment"):
        enrol.init(home, kit, mode=MODE)
    assert home.signing_key.read_bytes() == keys


def test_used_kit_is_refused_on_another_node(centre: LiveCentre, home: NodeHome, tmp_path: Path) -> None:
    kit = centre.kit(tmp_path)
    enrol.init(home, kit, mode=MODE)
    with pytest.raises(KitUsedError):
        enrol.init(NodeHome(tmp_path / "second"), kit, mode=MODE)


def test_expired_kit_is_named_before_anything_is_sent(centre: LiveCentre, home: NodeHome, tmp_path: Path) -> None:
    kit = centre.kit(tmp_path)
    with (
        time_machine.travel(datetime.now(UTC) + timedelta(days=30), tick=False),
        pytest.raises(KitExpiredError, match="expired on"),
    ):
        enrol.init(home, kit, mode=MODE)
    assert not home.keys.exists()


@pytest.mark.parametrize("damage", ["not json", "changed"])
def test_damaged_kit_is_refused(centre: LiveCentre, home: NodeHome, tmp_path: Path, damage: str) -> None:
    kit = centre.kit(tmp_path)
    if damage == "changed":
        kit.write_text(json.dumps({**json.loads(kit.read_text()), "server_url": "https://elsewhere.example"}))
    else:
        kit.write_text(kit.read_text()[:100])
    with pytest.raises(KitInvalidError):
        enrol.init(home, kit, mode=MODE)


def test_missing_kit_is_named(home: NodeHome, tmp_path: Path) -> None:
    with pytest.raises(KitInvalidError, match="no kit at"):
        enrol.init(home, tmp_path / "absent.json", mode=MODE)


def test_rejected_node_may_ask_again_with_a_new_kit(centre: LiveCentre, home: NodeHome, tmp_path: Path) -> None:
    first = enrol.init(home, centre.kit(tmp_path), mode=MODE)
    centre.reject(first.node_id)
    with pytest.raises(NotApprovedError, match="rejected"):
        enrol.enrolment_status(home)
    again = enrol.init(home, centre.kit(tmp_path), mode=MODE)
    assert (again.node_id, again.state) == (first.node_id, EnrolmentState.PENDING)


def test_home_without_init_says_what_to_do(home: NodeHome) -> None:
    with pytest.raises(ConfigError, match="hematovision-node init"):
        home.config()
