"""The centre's PAdES signature over a report, which leaves only the identity fields open."""

import io
from dataclasses import dataclass
from typing import Final

from asn1crypto import keys as asn1_keys
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import serialization
from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.generic import pdf_name, pdf_string
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import fields, signers
from pyhanko_certvalidator.registry import SimpleCertificateStore

from server.vault.document_key import DocumentKey
from shared.contracts.report import Signature
from shared.reporting.layout import IDENTITY_BOX, IDENTITY_LINE, field_name

SIGNATURE_FIELD: Final = "centre"
_READ_ONLY, _MULTILINE = 1, 1 << 12
_PRINTED: Final = 4


@dataclass(frozen=True)
class DocumentSigner:
    """Certifies reports with the vault's document key."""

    document: DocumentKey

    def sign(self, pdf: bytes, *, pages: int, signature: Signature, identifier: str) -> bytes:
        """Return ``pdf`` with the identity's form fields added and a certifying signature over all of it.

        The certification lets nobody change anything but the values of form fields.
        """
        writer = IncrementalPdfFileWriter(io.BytesIO(pdf))
        _add_fields(writer, pages)
        meta = signers.PdfSignatureMetadata(
            field_name=SIGNATURE_FIELD,
            md_algorithm="sha256",
            subfilter=fields.SigSeedSubFilter.PADES,
            certify=True,
            docmdp_permissions=fields.MDPPerm.FILL_FORMS,
            name=signature.reader_name,
            reason=signature.meaning,
            location=identifier,
        )
        out: io.BytesIO = signers.sign_pdf(writer, meta, signer=self._signer(), output=io.BytesIO())
        return out.getvalue()

    def _signer(self) -> signers.SimpleSigner:
        private = self.document.key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return signers.SimpleSigner(
            signing_cert=asn1_x509.Certificate.load(self.document.cert.public_bytes(serialization.Encoding.DER)),
            signing_key=asn1_keys.PrivateKeyInfo.load(private),
            cert_registry=SimpleCertificateStore(),
        )


def _add_fields(writer: IncrementalPdfFileWriter, pages: int) -> None:
    form = generic.DictionaryObject({pdf_name("/Fields"): generic.ArrayObject()})
    writer.root["/AcroForm"] = writer.add_object(form)
    writer.update_root()
    for page in range(1, pages + 1):
        room = IDENTITY_BOX if page == 1 else IDENTITY_LINE
        page_reference = writer.find_page_for_modification(page - 1)[0]
        x0, y0, x1, y1 = room.rectangle
        empty = generic.StreamObject(
            {
                pdf_name("/Type"): pdf_name("/XObject"),
                pdf_name("/Subtype"): pdf_name("/Form"),
                pdf_name("/BBox"): generic.ArrayObject(map(generic.FloatObject, (0, 0, x1 - x0, y1 - y0))),
            },
            stream_data=b"",
        )
        field = generic.DictionaryObject(
            {
                pdf_name("/Type"): pdf_name("/Annot"),
                pdf_name("/Subtype"): pdf_name("/Widget"),
                pdf_name("/FT"): pdf_name("/Tx"),
                pdf_name("/T"): pdf_string(field_name(page)),
                pdf_name("/TU"): pdf_string("Patient, filled in at the hospital"),
                pdf_name("/V"): pdf_string(""),
                pdf_name("/Ff"): generic.NumberObject(_READ_ONLY | _MULTILINE),
                pdf_name("/F"): generic.NumberObject(_PRINTED),
                pdf_name("/DA"): pdf_string("0 g"),
                pdf_name("/Rect"): generic.ArrayObject(map(generic.FloatObject, (x0, y0, x1, y1))),
                pdf_name("/P"): page_reference,
                pdf_name("/AP"): generic.DictionaryObject({pdf_name("/N"): writer.add_object(empty)}),
            }
        )
        reference = writer.add_object(field)
        form["/Fields"].append(reference)
        writer.register_annotation(page_reference, reference)
