"""Whether a hospital's picture is one: whole, of the kind it says, and of a size that a page and a report can bear."""

import io
import warnings
from typing import Final

from PIL import Image

MEDIA_TYPES: Final = {"image/png": "PNG", "image/jpeg": "JPEG"}
MOST_PIXELS: Final = 120_000_000
"""As many as a node takes in (`client_node.datasets.images`)."""


def is_image(content: bytes, media_type: str) -> bool:
    """Decode ``content`` to its end; a JPEG at an eighth of its size, which reads all of it at little cost.

    A picture that cannot be decoded would otherwise show only when its report is made, after the signature.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=(MEDIA_TYPES[media_type],)) as image:
                if image.width * image.height > MOST_PIXELS:
                    return False
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
                image.load()
    # Pillow's decoders raise whatever their parser trips over (struct.error, IndexError, …): no picture.
    except Exception:  # noqa: BLE001
        return False
    return True
