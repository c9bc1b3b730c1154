"""A report bundle on its way home: signed by the centre, sealed to one node, opened and checked there."""

import base64
import hashlib
from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from shared.contracts.canonical import canonical_bytes
from shared.contracts.errors import DataInvalidError
from shared.contracts.report import FeedbackLabel, ReportBundle, ReportFile, SignedRecord
from shared.crypto.envelope import EnvelopePrivateKey, EnvelopePublicKey
from shared.crypto.signing import VerifyKey

PDF: Final = "report.pdf"
FHIR: Final = "report.fhir.json"
HL7: Final = "report.hl7"
_MEDIA_TYPES: Final = {PDF: "application/pdf", FHIR: "application/fhir+json", HL7: "x-application/hl7-v2+er7"}


def seal_bundle(
    record: SignedRecord,
    record_signature: str,
    files: dict[str, bytes],
    feedback: tuple[FeedbackLabel, ...],
    *,
    sign: Callable[[bytes], str],
    receiver: EnvelopePublicKey,
) -> bytes:
    """Return the sealed bundle of a report: ``sign`` is the centre's signing key, ``receiver`` the node's."""
    unsigned = ReportBundle(
        record=record,
        record_signature=record_signature,
        files=tuple(
            ReportFile(
                name=name,
                media_type=_MEDIA_TYPES[name],
                sha256=hashlib.sha256(content).hexdigest(),
                content=base64.b64encode(content).decode(),
            )
            for name, content in files.items()
        ),
        feedback=feedback,
    )
    signed = unsigned.model_copy(update={"signature": sign(canonical_bytes(unsigned))})
    return receiver.seal(signed.model_dump_json(by_alias=True).encode(), _purpose(record.report_id, record.version))


def open_bundle(
    sealed: bytes, *, report_id: str, version: int, key: EnvelopePrivateKey, centre: VerifyKey
) -> tuple[ReportBundle, dict[str, bytes]]:
    """Open and check a delivered report.

    Args:
        sealed: the content as delivered.
        report_id, version: of the notice that announced it; another report's content does not open.
        key: the node's envelope key.
        centre: the centre's pinned signing key.

    Returns:
        The bundle and its files by name.

    Raises:
        DataInvalidError: it does not open, or is damaged.
        SignatureInvalidError: it is not the centre's.
    """
    try:
        bundle = ReportBundle.model_validate_json(key.open(sealed, _purpose(report_id, version)))
    except ValidationError:
        raise DataInvalidError("The report cannot be read; update the node's software and fetch it again.") from None
    centre.verify(canonical_bytes(bundle.model_copy(update={"signature": ""})), bundle.signature)
    centre.verify(canonical_bytes(bundle.record), bundle.record_signature)
    files = {file.name: base64.b64decode(file.content) for file in bundle.files}
    if any(hashlib.sha256(files[file.name]).hexdigest() != file.sha256 for file in bundle.files):
        raise DataInvalidError("A file of the report is damaged; fetch it again.")
    if (bundle.record.report_id, bundle.record.version) != (report_id, version):
        raise DataInvalidError("The content is another report's; fetch it again.")
    return bundle, files


def _purpose(report_id: str, version: int) -> bytes:
    return f"hematovision/report/1\n{report_id}\n{version}".encode()
