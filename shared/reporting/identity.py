"""Who the patient is. Objects of this module exist inside the hospital only."""

from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.contracts.case import Sex

Short = Annotated[str, StringConstraints(strip_whitespace=True, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]
Code = Annotated[str, StringConstraints(strip_whitespace=True, max_length=60, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Identity(BaseModel):
    """The patient, as the hospital's own ``context`` file names them; a name or a number is needed, fields beyond
    these are ignored.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    name: Short = ""
    """As it is to be printed: family name, given names."""
    patient_id: Code = ""
    """The hospital's own number."""
    birth_date: date | None = None
    sex: Sex = Sex.UNKNOWN
    order_number: Code = ""
    """Accession or order number of the sample."""
    ward: Code = ""
    collected_at: Code = Field(default="", description="When the sample was taken, as it is to be printed.")

    @model_validator(mode="after")
    def _names_somebody(self) -> "Identity":
        if not self.name and not self.patient_id:
            raise ValueError("an identity needs a name or a patient_id")
        return self

    @property
    def one_line(self) -> str:
        """Name, birth date and number in one line, for the head of every page."""
        born = f"born {self.birth_date:%d %b %Y}" if self.birth_date else ""
        return " · ".join(part for part in (self.name, born, self.patient_id) if part)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Label and value of what is known, in printing order."""
        born = f"{self.birth_date:%d %b %Y}" if self.birth_date else ""
        sex = "" if self.sex is Sex.UNKNOWN else self.sex.value
        pairs = [
            ("Name", self.name),
            ("Patient number", self.patient_id),
            ("Born", born),
            ("Sex", sex),
            ("Order", self.order_number),
            ("Ward", self.ward),
            ("Collected", self.collected_at),
        ]
        return [(label, value) for label, value in pairs if value]
