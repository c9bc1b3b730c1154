"""Which cases are read without the AI first: a share of all, by a key that nobody outside has."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlmodel import select

from server.cases.drawing import is_drawn
from server.cases.ingest import ingest
from server.models import AuditEntry, Case
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from tests.factories import Centre, centre_key, new_case_id, pack

IDS = [f"HV-{number:08d}" for number in range(1500)]


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory) -> list[FileVault]:
    return [FileVault.create(tmp_path_factory.mktemp("keys") / "keys") for _ in range(2)]


def test_a_share_of_the_cases_is_drawn_and_always_the_same(vaults: list[FileVault]) -> None:
    drawn = {case_id for case_id in IDS if is_drawn(vaults[0], case_id, 0.1)}
    assert 0.07 < len(drawn) / len(IDS) < 0.13
    assert {case_id for case_id in IDS if is_drawn(vaults[0], case_id, 0.1)} == drawn
    assert drawn <= {case_id for case_id in IDS if is_drawn(vaults[0], case_id, 0.2)}


def test_another_centre_draws_others(vaults: list[FileVault]) -> None:
    one, other = ({case_id for case_id in IDS if is_drawn(vault, case_id, 0.5)} for vault in vaults)
    assert 0.4 < len(one & other) / len(one) < 0.6


def test_none_and_all_can_be_drawn(vaults: list[FileVault]) -> None:
    assert not any(is_drawn(vaults[0], case_id, 0.0) for case_id in IDS[:50])
    assert all(is_drawn(vaults[0], case_id, 1.0) for case_id in IDS[:50])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_was_drawn_is_kept_with_the_case(centre: Centre, share: float) -> None:
    settings = centre.runtime.settings.model_copy(update={"blind_share": share})
    parcel = pack(centre.add_node("a"), centre_key(centre), case_id=new_case_id())
    parcel.upload(centre.store)
    ingest(replace(centre.runtime, settings=settings), hospital_id="a", case_id=parcel.case_id)
    with centre.runtime.database.session() as session:
        case = session.exec(select(Case)).one()
        received = session.exec(select(AuditEntry).where(AuditEntry.action == "case.received")).one()
        assert (case.blind_drawn, case.blind_read_at) == (share == 1.0, None)
        assert ("blind_first_read" in received.data) == (share == 1.0)


def test_a_tenth_is_drawn_unless_set_and_none_in_the_demonstration(tmp_path: Path) -> None:
    assert ServerSettings(home=tmp_path).effective_blind_share == 0.1
    assert ServerSettings(home=tmp_path, demo=True).effective_blind_share == 0.0
    assert ServerSettings(home=tmp_path, demo=True, blind_share=0.5).effective_blind_share == 0.5
    with pytest.raises(ValidationError):
        ServerSettings(home=tmp_path, blind_share=1.5)
