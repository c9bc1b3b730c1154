"""What looking further at a smear has found: everything behind what the centre has."""

from pydantic import BaseModel, ConfigDict


class Further(BaseModel):
    """Numbers of the first field and cell that the centre does not have, and of the last ones plus one."""

    model_config = ConfigDict(frozen=True)

    first_field: int
    first_cell: int
    fields: int
    cells: int
    model_version: str
