"""Fields as tiles and crops, decrypted and decoded in memory."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageChops

from server.cases import pictures, viewing
from server.cases import service as cases
from server.cases.ingest import ingest
from server.cases.pictures import OVERLAP, TILE, LevelCache, TilePlace
from server.models import Case, CaseField
from shared.contracts.errors import DataInvalidError, NotFoundError
from tests.factories import centre_key, make_smear, pack
from tests.server.conftest import Ward

WIDTH, HEIGHT = 1200, 900


def _painted() -> Image.Image:
    """A field in which every place has a colour of its own."""
    x, y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


@pytest.fixture(scope="module")
def field_bytes() -> bytes:
    out = io.BytesIO()
    _painted().save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


@pytest.fixture
def large(ward: Ward, field_bytes: bytes) -> tuple[Ward, str]:
    """Return the ward with a case whose field needs several tiles."""
    smear = make_smear()
    field = smear.fields[0].model_copy(update={"width": WIDTH, "height": HEIGHT})
    parcel = pack(
        ward.node,
        centre_key(ward.centre),
        smear=smear.model_copy(update={"fields": (field,)}),
        images={"field-0.jpg": field_bytes},
    )
    parcel.upload(ward.centre.store)
    ingest(ward.centre.runtime, hospital_id="a", case_id=parcel.case_id)
    return ward, parcel.case_id


def _tile(ward: Ward, case_id: str, *place: int) -> Image.Image:
    runtime = ward.centre.runtime
    with runtime.database.session(read_only=True) as session:
        content = viewing.field_tile(session, runtime, ward.reader, case_id, 0, TilePlace(*place))
    return Image.open(io.BytesIO(content))


def test_tiles_of_the_highest_level_are_the_field(large: tuple[Ward, str], field_bytes: bytes) -> None:
    highest = pictures.levels(WIDTH, HEIGHT)
    whole = Image.new("RGB", (WIDTH, HEIGHT))
    for column, row in product(range(3), range(2)):
        part = _tile(*large, highest, column, row)
        left, top = max(0, column * TILE - OVERLAP), max(0, row * TILE - OVERLAP)
        assert part.size == (
            min(WIDTH, (column + 1) * TILE + OVERLAP) - left,
            min(HEIGHT, (row + 1) * TILE + OVERLAP) - top,
        )
        whole.paste(part, (left, top))
    difference = ImageChops.difference(whole, Image.open(io.BytesIO(field_bytes)).convert("RGB"))
    assert np.asarray(difference).mean() < 2


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_lower_levels_are_the_whole_field_smaller(large: tuple[Ward, str], shift: int) -> None:
    level = pictures.levels(WIDTH, HEIGHT) - shift
    part = _tile(*large, level, 0, 0)
    size = (-(-WIDTH // 2**shift), -(-HEIGHT // 2**shift))
    assert part.size == (min(size[0], TILE + OVERLAP), min(size[1], TILE + OVERLAP))
    expected = _painted().resize(size, Image.Resampling.BOX).crop((0, 0, *part.size))
    assert np.asarray(ImageChops.difference(part, expected)).mean() < 3


@pytest.mark.parametrize("place", [(12, 0, 0), (11, 3, 0), (11, 0, 2), (-1, 0, 0), (5, 1, 0)])
def test_tile_outside_the_pyramid_is_not_found(large: tuple[Ward, str], place: tuple[int, int, int]) -> None:
    with pytest.raises(NotFoundError):
        _tile(*large, *place)


@pytest.mark.parametrize(("width", "height", "expected"), [(1, 1, 0), (512, 3, 9), (513, 3, 10), (1200, 900, 11)])
def test_levels_are_those_of_deep_zoom(width: int, height: int, expected: int) -> None:
    assert pictures.levels(width, height) == expected


def test_tiles_of_another_hospitals_case_are_not_found(large: tuple[Ward, str]) -> None:
    ward, case_id = large
    runtime = ward.centre.runtime
    with runtime.database.session(read_only=True) as session, pytest.raises(NotFoundError):
        viewing.field_tile(session, runtime, ward.other_it, case_id, 0, TilePlace(0, 0, 0))


def test_each_reader_needs_a_lease_of_their_own_though_the_level_is_kept(large: tuple[Ward, str]) -> None:
    ward, case_id = large
    _tile(ward, case_id, 9, 0, 0)
    ward.centre.store.delete(f"cases/a/{case_id}/key.json")
    runtime = ward.centre.runtime
    with runtime.database.session(read_only=True) as session, pytest.raises(NotFoundError):
        viewing.field_tile(session, runtime, ward.second_reader, case_id, 0, TilePlace(9, 0, 0))


def test_cache_keeps_no_more_bytes_than_it_may(large: tuple[Ward, str]) -> None:
    ward, case_id = large
    cache = LevelCache(most=WIDTH * HEIGHT)
    with ward.centre.runtime.database.session(read_only=True) as session:
        case, field = session.get_one(Case, case_id), cases.field_of(session, case_id, 0)
    for shift in (3, 2, 1, 1, 2):
        image = cache.get(ward.centre.runtime, case, field, shift, actor="user:x")
        assert image.size == (-(-WIDTH // 2**shift), -(-HEIGHT // 2**shift))
        assert cache.size <= WIDTH * HEIGHT
    cache.get(ward.centre.runtime, case, field, 0, actor="user:x")
    assert cache.size == WIDTH * HEIGHT * 3


def test_image_of_another_size_than_told_is_refused(large: tuple[Ward, str]) -> None:
    ward, case_id = large
    wrong = CaseField(case_id=case_id, index=0, blob="field-0.jpg", width=WIDTH + 1, height=HEIGHT)
    with ward.centre.runtime.database.session(read_only=True) as session:
        case = session.get_one(Case, case_id)
    with pytest.raises(DataInvalidError):
        pictures.tile(ward.centre.runtime, case, wrong, TilePlace(0, 0, 0), actor="user:x")
