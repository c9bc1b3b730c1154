"""Fields as pixels: decrypted and decoded in memory only, cut into tiles and crops on demand.

The pyramid is that of Deep Zoom: the highest level is the field itself, each level below has half its sides (rounded
up), tiles have `TILE` pixels a side and `OVERLAP` pixels of their neighbours. Decoded levels are kept in a small cache
that is bounded in bytes; whoever asks needs a lease of the case's key of their own, cached or not.
"""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from PIL import Image

from server.cases import blobs
from server.models import Case, CaseField
from server.runtime import Runtime
from server.vault.port import Vault
from shared.contracts.errors import DataInvalidError, NotFoundError

TILE: Final = 512
OVERLAP: Final = 1
CACHE_BYTES: Final = 192 * 1024**2
"""Of decoded pixels, all fields together. One field larger than that is kept alone."""
CONTEXT: Final = 1.9
"""Side of a crop in sides of the cell's box: as the nodes' own pictures of cells."""
_AT_ONCE: Final = 2
_QUALITY: Final = 92

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the field."""


@dataclass(frozen=True)
class TilePlace:
    """Which tile: level of the pyramid, column, row."""

    level: int
    column: int
    row: int


def levels(width: int, height: int) -> int:
    """Return the number of the highest level, which is the field at its full size; level 0 is one pixel."""
    return (max(width, height) - 1).bit_length()


def tile(runtime: Runtime, case: Case, field: CaseField, place: TilePlace, *, actor: str) -> bytes:
    """Return a tile as JPEG.

    Raises:
        NotFoundError: the pyramid has no such tile.
        DataInvalidError: the image is not the one that the case describes.
    """
    highest = levels(field.width, field.height)
    if not 0 <= place.level <= highest or place.column < 0 or place.row < 0:
        raise NotFoundError("The field has no such tile.")
    shift = highest - place.level
    width, height = _halved(field.width, shift), _halved(field.height, shift)
    x, y = place.column * TILE, place.row * TILE
    if x >= width or y >= height:
        raise NotFoundError("The field has no such tile.")
    image = _level(runtime, case, field, shift, actor=actor)
    part = (max(0, x - OVERLAP), max(0, y - OVERLAP), min(width, x + TILE + OVERLAP), min(height, y + TILE + OVERLAP))
    out = io.BytesIO()
    image.crop(part).save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


def crop(runtime: Runtime, case: Case, field: CaseField, box: Box, *, actor: str) -> bytes:
    """Return a square around a cell's box as PNG, moved into the field at its border."""
    image = _level(runtime, case, field, 0, actor=actor)
    side = round(max(box[2] - box[0], box[3] - box[1]) * CONTEXT)
    left = max(0, min((box[0] + box[2] - side) // 2, field.width - side))
    top = max(0, min((box[1] + box[3] - side) // 2, field.height - side))
    out = io.BytesIO()
    image.crop((left, top, min(field.width, left + side), min(field.height, top + side))).save(out, "PNG")
    return out.getvalue()


def _halved(side: int, shift: int) -> int:
    return -(-side // (1 << shift))


class LevelCache:
    """Least recently used decoded levels, bounded in bytes."""

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(_AT_ONCE)
        self._images: OrderedDict[tuple[str, str, int], Image.Image] = OrderedDict()

    @property
    def size(self) -> int:
        """Bytes of pixels that are kept."""
        with self._lock:
            return sum(_weight(image) for image in self._images.values())

    def get(self, runtime: Runtime, case: Case, field: CaseField, shift: int, *, actor: str) -> Image.Image:
        """Return a level of a field (RGB), decoded now where it is not kept."""
        place = (case.id, field.blob, shift)
        if (known := self._known(place)) is not None:
            return known
        # Two at once: each decoder holds a whole image, and more would only wait for the same two cores.
        with self._decoding:
            if (known := self._known(place)) is not None:
                return known
            content, _ = blobs.read(runtime, case, field.blob, actor=actor)
            image = _decoded(content, field, shift)
        with self._lock:
            self._images[place] = image
            while len(self._images) > 1 and sum(map(_weight, self._images.values())) > self.most:
                self._images.popitem(last=False)
        return image

    def _known(self, place: tuple[str, str, int]) -> Image.Image | None:
        with self._lock:
            known = self._images.get(place)
            if known is not None:
                self._images.move_to_end(place)
            return known


def _weight(image: Image.Image) -> int:
    return image.width * image.height * 3


def _decoded(content: bytes, field: CaseField, shift: int) -> Image.Image:
    wanted = (_halved(field.width, shift), _halved(field.height, shift))
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as opened:
        if opened.size != (field.width, field.height):
            raise DataInvalidError("The field's image has another size than the case says; tell the administrator.")
        opened.draft("RGB", wanted)  # a JPEG is decoded at a half, a quarter or an eighth of its size at once
        image = opened.convert("RGB")
    return image if image.size == wanted else image.resize(wanted, Image.Resampling.BOX)


_caches: WeakKeyDictionary[Vault, LevelCache] = WeakKeyDictionary()
_caches_lock = threading.Lock()


def cache_of(vault: Vault) -> LevelCache:
    """Return the cache that belongs to a vault; it goes when the vault does."""
    with _caches_lock:
        return _caches.setdefault(vault, LevelCache())


def _level(runtime: Runtime, case: Case, field: CaseField, shift: int, *, actor: str) -> Image.Image:
    blobs.key_of(runtime, case, actor=actor)
    return cache_of(runtime.vault).get(runtime, case, field, shift, actor=actor)
