"""What counts as a picture: decoded to its end, of the kind it says, and not absurdly large."""

import io

import pytest
from PIL import Image

from server.cases.images import MOST_PIXELS, is_image
from shared.contracts.ontology import CellClass
from tests.factories import cell_image, field_image

CELL, FIELD = cell_image(CellClass.NEUTROPHIL), field_image()


def test_whole_pictures_are_taken() -> None:
    assert is_image(CELL, "image/png")
    assert is_image(FIELD, "image/jpeg")


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (CELL, "image/jpeg"),
        (FIELD, "image/png"),
        (CELL[: len(CELL) // 2], "image/png"),
        (FIELD[: len(FIELD) // 2], "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "image/png"),
        (b"", "image/png"),
    ],
)
def test_anything_else_is_not(content: bytes, media_type: str) -> None:
    assert not is_image(content, media_type)


def test_decompression_bomb_is_not_decoded() -> None:
    out = io.BytesIO()
    Image.new("1", (20_000, MOST_PIXELS // 20_000 + 1)).save(out, "PNG")
    assert len(out.getvalue()) < 100_000
    assert not is_image(out.getvalue(), "image/png")
