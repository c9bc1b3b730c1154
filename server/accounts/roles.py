"""Who may do what, as types."""

from enum import StrEnum


class Role(StrEnum):
    """What a person is to the platform."""

    HEMATOLOGIST = "hematologist"
    COORDINATOR = "coordinator"
    HOSPITAL_IT = "hospital_it"
    AUDITOR = "auditor"
    ADMIN = "admin"

    @property
    def label(self) -> str:
        """The word on a page."""
        return {"hospital_it": "hospital IT"}.get(self.value, self.value)
