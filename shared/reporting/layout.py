"""Where a report leaves room for the patient's identity; the template and the form fields both follow it."""

from dataclasses import dataclass
from typing import Final

_POINTS_PER_MM: Final = 72 / 25.4
PAGE_HEIGHT_MM: Final = 297.0


@dataclass(frozen=True)
class Room:
    """A rectangle on an A4 page, in mm from its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def rectangle(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in PDF points from the bottom left corner."""
        top, bottom = PAGE_HEIGHT_MM - self.y, PAGE_HEIGHT_MM - self.y - self.height
        return (
            self.x * _POINTS_PER_MM,
            bottom * _POINTS_PER_MM,
            (self.x + self.width) * _POINTS_PER_MM,
            top * _POINTS_PER_MM,
        )


IDENTITY_BOX: Final = Room(20, 41, 170, 21)
"""On the first page."""
IDENTITY_LINE: Final = Room(20, 20, 170, 6)
"""On every further page."""


def field_name(page: int) -> str:
    """Return the name of the form field that holds the identity on a page, from 1."""
    return "patient" if page == 1 else f"patient-page-{page}"
