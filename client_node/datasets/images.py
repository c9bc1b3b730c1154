"""The node's own copies of images: content-addressed, written whole or not at all, read-only."""

import hashlib
import io
import os
import secrets
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from shared.contracts.errors import DataInvalidError
from shared.space import space_guard
from shared.vision.images import MAX_BYTES, MAX_PIXELS, MIN_SIDE, SUFFIXES, is_dicom, load_image

IMAGE_SUFFIXES: Final = SUFFIXES
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SUFFIX_OF_FORMAT: Final = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store."""

    sha256: str
    relative: str
    """Below the home's ``images`` folder."""
    width: int
    height: int


def inspect_image(data: bytes) -> tuple[int, int, str]:
    """Decode ``data`` to its last pixel and return (width, height, file suffix).

    JPEG is decoded at an eighth of its size: all of the file is read (a truncated one shows), at little cost.

    Raises:
        DataInvalidError: not an image, truncated, of an unsupported format, or absurdly large.
    """
    if not data:
        raise DataInvalidError("The file is empty.")
    if is_dicom(data):
        height, width = load_image(data).shape[:2]
        return width, height, ".dcm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                suffix = _accepted(image)
                image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
                image.load()
    except DataInvalidError:
        raise
    except UnidentifiedImageError as error:
        raise DataInvalidError("The file is not an image.") from error
    # Pillow's decoders raise whatever their parser trips over (struct.error, IndexError, …): "damaged".
    except Exception as error:
        if "truncated" in str(error):
            raise DataInvalidError("The image is truncated.") from error
        raise DataInvalidError("The image is damaged and cannot be decoded.") from error
    return width, height, suffix


def _accepted(image: Image.Image) -> str:
    width, height = image.size
    suffix = _SUFFIX_OF_FORMAT.get(image.format or "")
    if suffix is None:
        raise DataInvalidError(f"The image format {image.format} is not supported: use JPEG, PNG or TIFF.")
    if width * height > MAX_PIXELS:
        raise DataInvalidError(f"The image is too large ({width}×{height} pixels).")
    if min(width, height) < MIN_SIDE:
        raise DataInvalidError(f"The image is too small ({width}×{height} pixels).")
    return suffix


def read_limited(path: Path) -> bytes:
    """Return the bytes of ``path``.

    Raises:
        DataInvalidError: missing, unreadable, no regular file, or absurdly large.
    """
    try:
        if not path.is_file():
            raise DataInvalidError("The file does not exist." if not path.exists() else "This is not a regular file.")
        if path.stat().st_size > MAX_BYTES:
            raise DataInvalidError(f"The file is larger than {MAX_BYTES // 2**20} MiB.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataInvalidError("The file cannot be read.") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file of any size, read in parts.

    Raises:
        DataInvalidError: missing, unreadable or no regular file.
    """
    try:
        if not path.is_file():
            raise DataInvalidError("The file does not exist." if not path.exists() else "This is not a regular file.")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise DataInvalidError("The file cannot be read.") from error


@dataclass(slots=True)
class ImageStore:
    """Copies of images below ``root``; remembers what it added, so that a failed import can take it back."""

    root: Path
    added: list[Path] = field(default_factory=list)

    def put(self, data: bytes) -> StoredImage:
        """Store ``data`` unless it is there already (temporary file, then rename)."""
        width, height, suffix = inspect_image(data)
        sha256 = hashlib.sha256(data).hexdigest()
        relative = f"{sha256[:2]}/{sha256}{suffix}"
        target = self.root / relative
        if not target.exists():
            with space_guard(self.root.parent):
                write_atomic(target, data, mode=0o440)
            self.added.append(target)
        return StoredImage(sha256, relative, width, height)

    def take_back(self) -> None:
        """Remove what this store object added."""
        for path in self.added:
            with suppress(OSError):
                path.unlink()
        self.added.clear()


def write_atomic(target: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Write ``data`` to ``target`` whole or not at all."""
    # An analysis stores every cell so: no more calls to the system than it takes.
    temporary = f"{target.parent}/.part-{secrets.token_hex(8)}"
    try:
        handle = os.open(temporary, _NEW, 0o600)
    except FileNotFoundError:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, _NEW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(handle, mode)
        os.replace(temporary, target)  # noqa: PTH105 - Path makes two objects of it for every cell
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - a string already
        raise
