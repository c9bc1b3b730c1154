"""Reports come home: verified, stored whole, identified, their labels joined, acknowledged; however often."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_node.cases.glass import glass_asked, note_sent
from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox
from client_node.cases.reports import fetch_reports, report_folder
from client_node.centre import Centre as CentreClient
from client_node.datasets.catalogue import Catalogue
from client_node.datasets.labelled import Origin
from client_node.status import node_status
from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases import service as cases
from server.models import Report
from server.reports import service as reports
from server.reports.tasks import TASKS
from server.reviews import findings, geometry, glass
from server.reviews import service as reviews
from server.reviews.schemas import GlassInput, NewBox
from shared.contracts.case import CaseState
from shared.contracts.errors import NotFoundError
from shared.contracts.ontology import CellClass
from shared.contracts.report import GlassReason, SignedRecord
from shared.crypto.signing import SigningKey
from tests.client_node.world import Site, make_home, read_json, served
from tests.factories import PASSWORD, Centre, make_centre
from tests.reading import look_through, sign_input

CHANGED = ("c1", "c2")


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


@pytest.fixture
def reader(centre: Centre) -> Principal:
    return centre.add_person("reader", Role.HEMATOLOGIST)


def sign(site: Site, reader: Principal, case_id: str, *, changed: tuple[str, ...] = CHANGED) -> str:
    """Read and sign a case at the centre; return the report, rendered."""
    runtime = site.centre.runtime
    with runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        reviews.reclassify(
            session, reader, case_id, cell_ids=list(changed), label=CellClass.BAND_NEUTROPHIL, idempotency_key=case_id
        )
        look_through(session, reader, case_id)
        given = sign_input(session, reader, case_id, impression="Left shift.")
        report_id = reviews.sign(session, reader, runtime, case_id, given)
    TASKS["reports.render"](runtime, {"report_id": report_id})
    return report_id


def state(site: Site, reader: Principal, case_id: str) -> CaseState:
    with site.centre.runtime.database.session(read_only=True) as session:
        return cases.case_view(session, reader, case_id).state


def feedback_cells(site: Site) -> list[CellClass]:
    cells = Catalogue(site.home.path).cells(split="train")
    return [cell.cls for cell in cells if cell.origin is Origin.FEEDBACK]


def test_report_comes_home_with_identity_and_its_labels_join(site: Site, reader: Principal) -> None:
    case_id = site.send_case()
    report_id = sign(site, reader, case_id)
    assert fetch_reports(site.home, site.client) == (1, 2)
    folder = report_folder(site.home, report_id, 1)
    assert sorted(file.name for file in (folder / "hospital").iterdir()) == [
        "report.fhir.json", "report.hl7", "report.pdf",
    ]  # fmt: skip
    for name in ("report.fhir.json", "report.hl7"):
        assert b"MRN-7" in (folder / "hospital" / name).read_bytes()
        assert b"MRN-7" not in (folder / name).read_bytes()
    delivered, named = (folder / "report.pdf").read_bytes(), (folder / "hospital" / "report.pdf").read_bytes()
    assert named.startswith(delivered)
    assert len(named) > len(delivered)
    assert folder.stat().st_mode & 0o077 == 0
    assert feedback_cells(site) == [CellClass.BAND_NEUTROPHIL] * 2
    assert state(site, reader, case_id) is CaseState.CLOSED
    with site.centre.runtime.database.session(read_only=True) as session:
        assert reports.view(session, reader, report_id).labels_joined == 2
    assert site.told("acknowledgement") == [report_id]
    assert fetch_reports(site.home, site.client) == (0, 0)


def test_cell_that_the_reader_marked_comes_home_with_its_place(site: Site, reader: Principal) -> None:
    case_id, box, runtime = site.send_case(), (200, 150, 240, 190), site.centre.runtime
    with runtime.database.session() as session:
        cases.claim(session, reader, case_id)
    place = NewBox(cell_id="r0123456789ab", box=box)
    geometry.add(runtime, reader, case_id, field=0, place=place, label=CellClass.BLAST, idempotency_key="k1")
    sign(site, reader, case_id)
    assert fetch_reports(site.home, site.client) == (1, 3)
    marked = [cell for cell in Catalogue(site.home.path).cells(split="train") if cell.cls is CellClass.BLAST]
    assert [(cell.box, cell.origin) for cell in marked] == [(box, Origin.FEEDBACK)]
    (field,) = Catalogue(site.home.path).fields()
    assert (field.cells, field.complete) == ((box,), False)


@pytest.mark.parametrize("after", ["stored", "stored halfway", "joined"])
def test_node_killed_on_the_way_finishes_at_the_next_call(site: Site, reader: Principal, after: str) -> None:
    case_id = site.send_case()
    report_id = sign(site, reader, case_id)
    fetch_reports(site.home, site.client)
    folder = report_folder(site.home, report_id, 1)
    with site.centre.runtime.database.session() as session:  # as if the acknowledgement had never left
        row = session.get(Report, report_id)
        assert row is not None
        row.acknowledged_at = row.labels_joined = None
    (folder / "acknowledged.json").unlink()
    if after == "stored halfway":
        folder.rename(folder.with_name(f".{folder.name}.partial"))
    if after == "stored":
        shutil.rmtree(site.home.images)
        site.home.catalogue.unlink()
    assert fetch_reports(site.home, site.client) == (1, 2)
    assert feedback_cells(site) == [CellClass.BAND_NEUTROPHIL] * 2
    assert read_json(folder / "acknowledged.json")["labels_joined"] == 2
    assert [entry.name for entry in site.home.reports.iterdir()] == [folder.name]


def test_damaged_stored_copy_is_fetched_again(site: Site, reader: Principal) -> None:
    report_id = sign(site, reader, site.send_case())
    folder = report_folder(site.home, report_id, 1)
    fetch_reports(site.home, site.client)
    with site.centre.runtime.database.session() as session:
        row = session.get(Report, report_id)
        assert row is not None
        row.acknowledged_at = None
    (folder / "bundle.json").write_text("{")
    assert fetch_reports(site.home, site.client) == (1, 2)
    assert read_json(folder / "bundle.json")["files"] == []


def test_report_not_signed_by_the_pinned_centre_is_not_acknowledged(site: Site, reader: Principal) -> None:
    case_id = site.send_case()
    report_id = sign(site, reader, case_id)
    keys = read_json(site.home.server_keys)
    real = site.home.server_keys.read_text()
    site.home.server_keys.write_text(real.replace(str(keys["signing"]), SigningKey.generate().public.to_base64()))
    assert fetch_reports(site.home, site.client) == (0, 0)
    assert list(site.home.reports.iterdir()) == []
    assert site.told("acknowledgement") == []
    assert feedback_cells(site) == []
    assert state(site, reader, case_id) is CaseState.DELIVERED
    site.home.server_keys.write_text(real)
    assert fetch_reports(site.home, site.client) == (1, 2)
    assert site.told("acknowledgement") == [report_id]


def test_one_bad_report_keeps_no_other_back(site: Site, reader: Principal) -> None:
    bad = sign(site, reader, site.send_case())
    good = sign(site, reader, site.send_case())
    with site.centre.runtime.database.session() as session:
        row = session.get(Report, bad)
        assert row is not None
        assert row.bundle_key is not None
        key = row.bundle_key
    site.centre.store.put(key, b"not the sealed bundle")
    assert fetch_reports(site.home, site.client) == (1, 2)
    assert site.told("acknowledgement") == [good]
    assert [entry.name for entry in site.home.reports.iterdir()] == [f"{good}-v1"]


def test_report_without_identity_is_kept_as_delivered(site: Site, reader: Principal) -> None:
    report_id = sign(site, reader, site.send_case(identity=None))
    assert fetch_reports(site.home, site.client) == (1, 2)
    folder = report_folder(site.home, report_id, 1)
    assert (folder / "hospital" / "report.pdf").read_bytes() == (folder / "report.pdf").read_bytes()


def test_label_whose_image_is_gone_does_not_count(site: Site, reader: Principal) -> None:
    case_id = site.send_case()
    smear_id = Outbox(site.home).get(case_id).smear_id
    (site.home.smear(smear_id) / "cells" / "c1.png").unlink()
    sign(site, reader, case_id)
    assert fetch_reports(site.home, site.client) == (1, 1)
    assert feedback_cells(site) == [CellClass.BAND_NEUTROPHIL]


def test_acknowledgement_is_in_the_ledger_which_verifies(site: Site, reader: Principal) -> None:
    sign(site, reader, site.send_case())
    fetch_reports(site.home, site.client)
    assert Ledger(site.home).verify() == len(Ledger(site.home).entries())


def ask_for_glass(site: Site, reader: Principal, case_id: str) -> str:
    """Sign at the centre that a case cannot be read; return the letter, rendered."""
    runtime = site.centre.runtime
    with runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        version = cases.case_view(session, reader, case_id).version
        given = GlassInput(password=PASSWORD, reason=GlassReason.STAIN, note="Nearly colourless.", case_version=version)
        report_id = glass.ask(session, reader, runtime, case_id, given)
    TASKS["reports.render"](runtime, {"report_id": report_id})
    return report_id


def test_glass_slide_that_is_asked_for_is_listed_until_it_is_sent(site: Site, reader: Principal) -> None:
    read, unreadable = site.send_case(), site.send_case()
    sign(site, reader, read)
    letter = ask_for_glass(site, reader, unreadable)
    assert fetch_reports(site.home, site.client) == (2, 2)
    (asked,) = glass_asked(site.home)
    assert (asked.case_id, asked.smear_id) == (unreadable, Outbox(site.home).get(unreadable).smear_id)
    assert asked.reason == "The stain or its colours do not allow a reading. Nearly colourless."
    assert (site.home.reports / asked.folder / "hospital" / "report.pdf").is_file()
    assert asked.folder == f"{letter}-v1"
    assert node_status(site.home).glass == (asked,)
    assert state(site, reader, unreadable) is CaseState.REJECTED
    with pytest.raises(NotFoundError, match="No glass slide"):
        note_sent(site.home, read)
    note_sent(site.home, unreadable)
    assert glass_asked(site.home) == ()


def test_findings_come_home_in_record_and_messages(site: Site, reader: Principal) -> None:
    case_id, runtime = site.send_case(), site.centre.runtime
    with runtime.database.session() as session:
        cases.claim(session, reader, case_id)
        findings.record(
            session, reader, case_id, item="schistocytes", value={"counted": 1000, "schistocytes": 14},
            idempotency_key="step-one", few=frozenset(),
        )  # fmt: skip
    report_id = sign(site, reader, case_id)
    assert fetch_reports(site.home, site.client) == (1, 2)
    folder = report_folder(site.home, report_id, 1)
    record = SignedRecord.model_validate_json((folder / "record.json").read_bytes())
    assert record.findings is not None
    assert record.findings.schistocytes is not None
    hl7 = (folder / "hospital" / "report.hl7").read_text()
    assert "NM|schistocyte-count^schistocytes counted^L||1.40|%^%^UCUM|0.77-2.34|A" in hl7
