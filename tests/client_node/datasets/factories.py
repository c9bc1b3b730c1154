"""Small labelled folders for tests."""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = ("path", "kind", "class", "subtype", "source", "site", "group", "split", "xmin", "ymin", "xmax", "ymax")


def image_bytes(seed: int = 0, size: tuple[int, int] = (64, 64), fmt: str = "PNG") -> bytes:
    """Noise, so that every seed is another image."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt)
    return buffer.getvalue()


def put_image(path: Path, seed: int = 0, size: tuple[int, int] = (64, 64), fmt: str = "PNG") -> Path:
    """Write such an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_bytes(seed, size, fmt))
    return path


def put_labels(folder: Path, rows: list[dict[str, object]], name: str = "labels.csv") -> Path:
    """Write a label file with all columns."""
    path = folder / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path
