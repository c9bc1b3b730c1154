"""The patient's identity: what it needs, how it is written in HL7, and that typesetting treats words as words."""

import io
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from pyhanko.pdf_utils.reader import PdfFileReader

from shared.contracts.errors import DataInvalidError, ServiceUnavailableError
from shared.reporting import identify
from shared.reporting.hl7 import escape
from shared.reporting.identity import Identity
from shared.reporting.layout import IDENTITY_BOX, field_name
from shared.reporting.typeset import typeset

AT = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
OVERLAY = identify._TEMPLATE


def test_identity_needs_a_name_or_a_number() -> None:
    with pytest.raises(ValidationError):
        Identity.model_validate({"sex": "male", "ward": "3"})
    assert Identity.model_validate({"patient_id": "7"}).one_line == "7"


def test_identity_with_control_characters_is_refused() -> None:
    with pytest.raises(ValidationError):
        Identity.model_validate({"name": "A\rPID|1||x"})


def test_identity_lines_hold_what_is_known_only() -> None:
    who = Identity.model_validate({"name": "Doe, Jo", "birth_date": "1961-04-03"})
    assert who.lines == [("Name", "Doe, Jo"), ("Born", "03 Apr 1961")]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b^c&d~e", "a\\F\\b\\S\\c\\T\\d\\R\\e"),
        ("back\\slash", "back\\E\\slash"),
        ("two\r\nlines\n", "two\\.br\\lines\\.br\\"),
    ],
)
def test_escape_leaves_no_delimiter(text: str, written: str) -> None:
    assert escape(text) == written


def test_identify_refuses_what_is_no_report() -> None:
    who = Identity(name="Doe, Jo")
    blank = typeset(OVERLAY, {"width": 50, "height": 20, "lines": [], "line": "x"}, timestamp=AT)
    for pdf in (b"nothing", blank):
        with pytest.raises(DataInvalidError):
            identify.identify_pdf(pdf, who)
    with pytest.raises(DataInvalidError):
        identify.identify_fhir(b"[]", who)
    with pytest.raises(DataInvalidError):
        identify.identify_hl7(b"hello", who)


def test_typeset_is_the_same_for_the_same_input_and_never_runs_words() -> None:
    data = {"width": 170, "height": 21, "lines": [["Name", '#panic("x") *b* \\ ]'], ["Number", "7" * 60]], "line": ""}
    first, second = (typeset(OVERLAY, data, timestamp=AT) for _ in range(2))
    assert first == second
    assert int(PdfFileReader(io.BytesIO(first)).root["/Pages"]["/Count"]) == 1


def test_typeset_of_missing_data_says_so_without_inner_detail() -> None:
    with pytest.raises(ServiceUnavailableError, match="could not be set"):
        typeset(OVERLAY, {}, timestamp=AT)


def test_layout_is_in_points_from_the_bottom() -> None:
    x0, y0, x1, y1 = IDENTITY_BOX.rectangle
    assert (round(x0, 1), round(x1 - x0, 1), round(y1 - y0, 1)) == (56.7, 481.9, 59.5)
    assert round(y0, 1) == 666.1
    assert (field_name(1), field_name(2)) == ("patient", "patient-page-2")
