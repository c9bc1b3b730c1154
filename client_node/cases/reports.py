"""Brings signed reports home: fetched, verified, stored, the patient's identity put in, acknowledged.

``H/reports/<report id>-v<n>/`` holds the delivery as the centre signed it and, in ``hospital/``, the copies that name
the patient; the folder appears whole or not at all, and is on the disk before the centre is told so.
``acknowledged.json`` in it is written last. Killed at any point, the next call goes on from there.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from client_node.cases.feedback import join_labels
from client_node.cases.identity import IdentityStore
from client_node.centre import Centre, read_server_keys
from client_node.home import NodeHome
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ConfigError, DataInvalidError, HematovisionError, SignatureInvalidError
from shared.contracts.report import Acknowledgement, ReportBundle, ReportNotice
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.signing import VerifyKey
from shared.reporting.bundle import FHIR, HL7, PDF, open_bundle
from shared.space import space_guard

ACKNOWLEDGED: Final = "acknowledged.json"
_BUNDLE: Final = "bundle.json"
_DELIVERY: Final = "delivery.json"
_HOSPITAL: Final = "hospital"

log = structlog.get_logger(__name__)


def fetch_reports(home: NodeHome | Path, centre: Centre) -> tuple[int, int]:
    """Bring home every waiting report; return how many, and how many labels joined their images.

    One bad report never keeps the others back; it stays unacknowledged, so the centre sees that it did not arrive.
    """
    place, reports, labels = NodeHome(home), 0, 0
    for notice in sorted(centre.reports(), key=lambda notice: (notice.case_id, notice.version)):
        try:
            with space_guard(place.path):
                joined = _bring_home(place, centre, notice)
        except (HematovisionError, OSError) as error:
            reason = {"code": error.code, "reason": error.message} if isinstance(error, HematovisionError) else {}
            log.warning("report.not_fetched", report_id=notice.report_id, kind=type(error).__name__, **reason)
            continue
        reports += 1
        labels += joined
        log.info("report.home", report_id=notice.report_id, case_id=notice.case_id, labels=joined)
    return reports, labels


def report_folder(home: NodeHome, report_id: str, version: int) -> Path:
    """Where a version of a report lies."""
    name = f"{report_id}-v{version}"
    if Path(name).name != name:
        raise DataInvalidError("A report's id holds no path separators.")
    return home.reports / name


def _bring_home(home: NodeHome, centre: Centre, notice: ReportNotice) -> int:
    folder = report_folder(home, notice.report_id, notice.version)
    bundle = _stored(folder, notice)
    if bundle is None:
        sealed = centre.report_content(notice.report_id)
        if hashlib.sha256(sealed).hexdigest() != notice.sha256:
            raise DataInvalidError("The report was damaged on its way; it is fetched again.")
        bundle = _store(home, folder, notice, sealed)
    joined = join_labels(home, bundle.feedback)
    acknowledgement = Acknowledgement(version=notice.version, sha256=notice.sha256, labels_joined=joined)
    centre.acknowledge(notice.report_id, acknowledgement)
    _write(folder / ACKNOWLEDGED, canonical_bytes(acknowledgement))
    return joined


def _stored(folder: Path, notice: ReportNotice) -> ReportBundle | None:
    """Return the report if an earlier call stored this very delivery; a damaged copy is fetched again."""
    try:
        if json.loads((folder / _DELIVERY).read_text()) != _delivery(notice):
            return None
        return ReportBundle.model_validate_json((folder / _BUNDLE).read_bytes())
    except (OSError, ValueError, ValidationError):
        return None


def _delivery(notice: ReportNotice) -> dict[str, str | int]:
    return {"sha256": notice.sha256, "size": notice.size}


def _store(home: NodeHome, folder: Path, notice: ReportNotice, sealed: bytes) -> ReportBundle:
    bundle, files = _verified(home, notice, sealed)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    (partial / _HOSPITAL).mkdir(mode=0o700)
    for name, content in files.items():
        _write(partial / name, content)
    for name, content in _identified(home, bundle.record.case_id, files).items():
        _write(partial / _HOSPITAL / name, content)
    _write(partial / "record.json", canonical_bytes(bundle.record))
    _write(partial / "record.sig", bundle.record_signature.encode())
    _write(partial / _DELIVERY, json.dumps(_delivery(notice)).encode())
    slim = bundle.model_copy(update={"files": ()})
    _write(partial / _BUNDLE, canonical_bytes(slim))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    _sync(folder)
    _sync(folder.parent)
    return slim


def _write(file: Path, content: bytes) -> None:
    """Write a file to the disk itself: once acknowledged, the centre sends the report no more."""
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _verified(home: NodeHome, notice: ReportNotice, sealed: bytes) -> tuple[ReportBundle, dict[str, bytes]]:
    try:
        key = EnvelopePrivateKey.from_pem(home.envelope_key.read_bytes())
    except OSError:
        raise ConfigError("keys/envelope.pem cannot be read: restore it from a backup.") from None
    signer = VerifyKey.from_base64(read_server_keys(home).signing)
    bundle, files = open_bundle(sealed, report_id=notice.report_id, version=notice.version, key=key, centre=signer)
    record = bundle.record
    if record.case_id != notice.case_id or record.hospital_id != home.config().hospital_id:
        raise SignatureInvalidError("The report is another case's or another hospital's: call the centre.")
    if any(label.case_id != record.case_id for label in bundle.feedback):
        raise DataInvalidError("The report brings labels of another case: call the centre.")
    if not {PDF} <= set(files) <= {PDF, FHIR, HL7}:
        raise DataInvalidError("The report holds other files than this software knows: update it.")
    return bundle, files


def _identified(home: NodeHome, case_id: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the hospital's copies: with the identity, where the hospital gave one with the smear."""
    identity = IdentityStore(home).get(case_id)
    if identity is None:
        log.info("report.no_identity", case_id=case_id)
        return files
    # pyHanko and typst are slow to import, and only needed when a report has come.
    from shared.reporting.identify import identify_fhir, identify_hl7, identify_pdf

    copies = dict(files)
    pdf = copies[PDF] = identify_pdf(files[PDF], identity)
    if FHIR in files:
        copies[FHIR] = identify_fhir(files[FHIR], identity, pdf=pdf)
    if HL7 in files:
        copies[HL7] = identify_hl7(files[HL7], identity, pdf=pdf)
    return copies
