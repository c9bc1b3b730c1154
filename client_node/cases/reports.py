"""Brings signed reports home: fetched, verified, stored, the patient's identity put in, acknowledged.

``H/reports/<report id>-v<n>/`` holds the delivery as the centre signed it and, in ``hospital/``, the copies that name
the patient; the folder appears whole or not at all. ``acknowledged.json`` in it is written last.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

import structlog

from client_node.cases.feedback import join_labels
from client_node.cases.identity import IdentityStore
from client_node.centre import Centre, read_server_keys
from client_node.home import NodeHome
from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import ConfigError, DataInvalidError, HematovisionError, SignatureInvalidError
from shared.contracts.report import Acknowledgement, FeedbackLabel, ReportBundle, ReportNotice
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.signing import VerifyKey
from shared.reporting.bundle import FHIR, HL7, PDF, open_bundle

ACKNOWLEDGED: Final = "acknowledged.json"
_BUNDLE: Final = "bundle.json"
_HOSPITAL: Final = "hospital"

log = structlog.get_logger(__name__)


def fetch_reports(home: NodeHome | Path, centre: Centre) -> tuple[int, int]:
    """Bring home every waiting report; return how many, and how many labels joined their images.

    One bad report never keeps the others back; it stays unacknowledged, so the centre sees that it did not arrive.
    """
    place, reports, labels = NodeHome(home), 0, 0
    for notice in centre.reports():
        try:
            joined = _bring_home(place, centre, notice)
        except HematovisionError as error:
            log.warning("report.not_fetched", report_id=notice.report_id, code=error.code, reason=error.message)
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
    if not (folder / _BUNDLE).is_file() or _digest(folder) != notice.sha256:
        sealed = centre.report_content(notice.report_id)
        if hashlib.sha256(sealed).hexdigest() != notice.sha256:
            raise DataInvalidError("The report was damaged on its way; it is fetched again.")
        _store(home, folder, notice, sealed)
    bundle = ReportBundle.model_validate_json((folder / _BUNDLE).read_bytes())
    joined = join_labels(home, bundle.feedback)
    acknowledgement = Acknowledgement(version=notice.version, sha256=notice.sha256, labels_joined=joined)
    centre.acknowledge(notice.report_id, acknowledgement)
    (folder / ACKNOWLEDGED).write_bytes(canonical_bytes(acknowledgement))
    return joined


def _store(home: NodeHome, folder: Path, notice: ReportNotice, sealed: bytes) -> None:
    bundle, files = _verified(home, notice, sealed)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / _HOSPITAL).mkdir(mode=0o700, parents=True)
    for name, content in files.items():
        (partial / Path(name).name).write_bytes(content)
    (partial / "record.json").write_bytes(canonical_bytes(bundle.record))
    (partial / "record.sig").write_text(bundle.record_signature)
    (partial / "delivery.json").write_text(json.dumps({"sha256": notice.sha256, "size": len(sealed)}))
    for name, content in _identified(home, bundle.record.case_id, files).items():
        (partial / _HOSPITAL / name).write_bytes(content)
    slim = bundle.model_copy(update={"files": ()})
    (partial / _BUNDLE).write_bytes(canonical_bytes(slim))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


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
    if any(not _belongs(label, record.case_id) for label in bundle.feedback):
        raise DataInvalidError("The report brings labels of another case: call the centre.")
    return bundle, files


def _belongs(label: FeedbackLabel, case_id: str) -> bool:
    return label.case_id == case_id


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


def _digest(folder: Path) -> str:
    try:
        return str(json.loads((folder / "delivery.json").read_text())["sha256"])
    except (OSError, ValueError, KeyError):
        return ""
