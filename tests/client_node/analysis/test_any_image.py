"""The whole pipeline on images that nobody would send: pixels of any kind, files broken anywhere."""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from client_node.analysis.service import Analyser, Options
from client_node.analysis.smears import SmearKind
from shared.contracts.analysis import Smear
from shared.contracts.errors import HematovisionError
from tests.client_node.analysis.factories import draw_field
from tests.client_node.analysis.models import install_model
from tests.shared.vision.slide_files import dicom_slide, tiled_tiff
from tests.shared.vision.test_images import PIXELS, dicom, encoded

_KINDS = [SmearKind.FIELDS, SmearKind.GALLERY, SmearKind.AUTO]
_SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.too_slow],
)  # fmt: skip
_FIELD = Image.fromarray(draw_field(0, [])[0]).resize((160, 120))


def _slide_bytes(kind: str) -> bytes:
    picture = np.asarray(_FIELD.resize((512, 512)))
    with TemporaryDirectory() as folder:
        if kind == "dcm":
            return dicom_slide(Path(folder), picture).read_bytes()
        return tiled_tiff(Path(folder) / "a.tif", 1024, {(0, 0): picture}).read_bytes()


_GOOD = {
    "a.png": encoded(_FIELD),
    "a.jpg": encoded(_FIELD, "JPEG"),
    "a.tif": encoded(_FIELD, "TIFF"),
    "a.bmp": encoded(_FIELD, "BMP"),
    "a.webp": encoded(_FIELD, "WEBP"),
    "a.dcm": dicom(PIXELS),
    "b.dcm": _slide_bytes("dcm"),
    "b.svs": _slide_bytes("tif"),
}


@pytest.fixture(scope="module")
def analyser(tmp_path_factory: pytest.TempPathFactory) -> Analyser:
    home = tmp_path_factory.mktemp("node")
    install_model(home, finds=True)
    return Analyser(home)


def survives(analyser: Analyser, name: str, data: bytes, kind: SmearKind) -> None:
    """Analyse one file: a smear that is sound, or one of our own errors with a sentence."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        said = ""
        smears: tuple[Smear, ...] = ()
        try:
            smears = analyser.analyze([path], options=Options(kind=kind)).smears
        except HematovisionError as error:
            said = error.message
    assert smears or said.strip().endswith(".")
    for cell in (cell for smear in smears for cell in smear.cells):
        assert 0.0 <= cell.probability <= 1.0
        assert np.isfinite(cell.ood_score)
        assert cell.box[0] < cell.box[2]
        assert cell.box[1] < cell.box[3]


@_SETTINGS
@given(
    values=st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8", "?"]).flatmap(
        lambda kind: arrays.arrays(
            np.dtype(kind),
            st.tuples(st.integers(1, 48), st.integers(1, 48), st.integers(1, 5)).map(
                lambda shape: shape if shape[2] > 1 else shape[:2]
            ),
            fill=st.just(0),
        )
    ),
    kind=st.sampled_from(_KINDS),
)
def test_a_tiff_of_any_shape_and_type(analyser: Analyser, values: np.ndarray, kind: SmearKind) -> None:
    buffer = io.BytesIO()
    try:
        tifffile.imwrite(buffer, values, photometric="rgb" if values.shape[2:] in ((3,), (4,)) else "minisblack")
    except (ValueError, KeyError, TypeError):
        return  # nobody can write such a file
    survives(analyser, "a.tif", buffer.getvalue(), kind)


@_SETTINGS
@given(
    mode=st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F", "LA", "PA"]),
    form=st.sampled_from(
        [("PNG", "a.png"), ("TIFF", "a.tif"), ("JPEG", "a.jpg"), ("WEBP", "a.webp"), ("BMP", "a.bmp")]
    ),
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    seed=st.integers(0, 99),
    kind=st.sampled_from(_KINDS),
)
def test_a_picture_of_any_mode_and_size(
    analyser: Analyser, mode: str, form: tuple[str, str], width: int, height: int, seed: int, kind: SmearKind
) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    try:
        Image.fromarray(noise).convert(mode).save(buffer, form[0])
    except (OSError, ValueError, KeyError):
        return  # the format has no such mode
    survives(analyser, form[1], buffer.getvalue(), kind)


@_SETTINGS
@given(
    name=st.sampled_from(sorted(_GOOD)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    kept=st.floats(0.0, 1.0),
    renamed=st.sampled_from(["", ".tif", ".dcm", ".svs"]),
    kind=st.sampled_from(_KINDS),
)
def test_a_file_with_any_bytes_wrong(
    analyser: Analyser, name: str, changes: list[tuple[float, int]], kept: float, renamed: str, kind: SmearKind
) -> None:
    data = bytearray(_GOOD[name])
    for place, value in changes:
        data[min(len(data) - 1, int(place * len(data)))] = value
    cut = bytes(data) if kept > 0.5 else bytes(data[: int(2 * kept * len(data))])
    survives(analyser, name if not renamed else f"a{renamed}", cut, kind)
