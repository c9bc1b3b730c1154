"""Fixed templates and data in, PDF out; in a child process, since a document is made of other people's words."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from shared.contracts.errors import DependencyMissingError, ServiceUnavailableError

_CHILD: Final = Path(__file__).with_name("typeset_child.py")
_TIMEOUT: Final = 60.0
ARCHIVAL: Final = ("a-2b",)


def typeset(
    template: Path,
    data: Mapping[str, Any],  # Any: each template documents its own shape
    *,
    files: Mapping[str, bytes] | None = None,
    timestamp: datetime,
    standards: tuple[str, ...] = ARCHIVAL,
    timeout: float = _TIMEOUT,
) -> bytes:
    """Return the PDF of a fixed template.

    Args:
        template: a ``.typ`` file of ours; nothing a user wrote is ever part of it.
        data: what the document says, reaching the template as JSON text in ``sys.inputs.data`` only, so that no word in
            it can be markup.
        files: images by name, which the template reads from its own folder.
        timestamp: the document's date; the same input gives the same bytes.
        standards: PDF standards as typst names them; tagged PDF in any case.
        timeout: seconds until the child is killed.

    Raises:
        DependencyMissingError: typst is not installed.
        ServiceUnavailableError: the document could not be set in time or at all.
    """
    if importlib.util.find_spec("typst") is None:
        raise DependencyMissingError("The package typst is missing; install the project with its extras.")
    with tempfile.TemporaryDirectory(prefix="hv-typeset-") as folder:
        root = Path(folder)
        main = root / template.name
        shutil.copyfile(template, main)
        for name, content in (files or {}).items():
            (root / Path(name).name).write_bytes(content)
        order = {
            "template": str(main),
            "root": str(root),
            "fonts": _font_folders(),
            "data": json.dumps(data, ensure_ascii=False),
            "standards": list(standards),
            "timestamp": int(timestamp.timestamp()),
        }
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(_CHILD)],
                input=json.dumps(order).encode(),
                capture_output=True,
                timeout=timeout,
                check=True,
                cwd=root,
            )
        except subprocess.TimeoutExpired:
            raise ServiceUnavailableError("The document took too long to set; it is tried again.") from None
        except subprocess.CalledProcessError as failed:
            raise ServiceUnavailableError("The document could not be set; see the worker's log.") from RuntimeError(
                failed.stderr.decode(errors="replace")[-2000:]
            )
    return done.stdout


@cache
def _font_folders() -> list[str]:
    """Return font folders beyond the system's: the DejaVu fonts that come with matplotlib, where it is installed."""
    spec = importlib.util.find_spec("matplotlib")
    folders = [Path(place) / "mpl-data/fonts/ttf" for place in (spec.submodule_search_locations or [])] if spec else []
    return [str(folder) for folder in folders if folder.is_dir()]
