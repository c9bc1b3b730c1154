"""The context file that the hospital gives with a smear: the identity stays, the allow-listed rest may leave."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.cases.pseudonym import patient_pseudonym
from client_node.home import NodeHome
from shared.contracts.case import BloodCount, ClinicalContext, Sex
from shared.contracts.errors import DataInvalidError
from shared.reporting.identity import Identity


class LocalContext(BaseModel):
    """``context.json``. Unknown fields are refused: nothing unlisted slips through, and a typo shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    identity: Identity | None = None
    """Never leaves the hospital."""
    age_band: str = "unknown"
    sex: Sex = Sex.UNKNOWN
    question: str = ""
    blood_count: BloodCount = BloodCount()
    scanner_alias: str = ""
    phone: str = ""
    stain: str = ""

    def leaving(self, home: NodeHome, smear_id: str) -> ClinicalContext:
        """Return what leaves: a pseudonym in place of the identity."""
        return ClinicalContext.model_validate(
            {
                **self.model_dump(exclude={"identity"}),
                "patient_pseudonym": patient_pseudonym(home, self.identity, otherwise=smear_id),
            }
        )


def read_context(file: Path | None) -> LocalContext:
    """Read a context file; none is an empty context.

    Raises:
        DataInvalidError: it cannot be read, or a field is unknown or wrong.
    """
    if file is None:
        return LocalContext()
    try:
        context = LocalContext.model_validate_json(file.read_bytes())
        ClinicalContext.model_validate({**context.model_dump(exclude={"identity"}), "patient_pseudonym": "0" * 32})
    except OSError:
        raise DataInvalidError(f"The context file {file} cannot be read: check its path.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its JSON"
        raise DataInvalidError(f"The context file {file.name} is wrong at {where}: {first['msg']}.") from None
    return context
