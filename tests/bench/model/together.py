"""Images of a hospital's store as one smear: they lie in many folders there, and loose files of one folder are one."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def together(paths: Sequence[Path], names: Sequence[str] | None = None) -> Iterator[list[Path]]:
    """Yield copies of the images in one folder, in their order, for a while.

    ``names``: of the same length; a copy is then called ``NUMBER.NAME.SUFFIX``, see `name_of`.
    """
    said = names or ["image"] * len(paths)
    with tempfile.TemporaryDirectory(prefix="hematovision-bench-") as folder:
        yield [
            Path(shutil.copyfile(path, Path(folder) / f"{number:04d}.{name}{path.suffix}"))
            for number, (path, name) in enumerate(zip(paths, said, strict=True))
        ]


def name_of(copy: Path) -> str:
    """Return the name that a copy was given."""
    return copy.name.split(".")[1]
