"""Scripts, styles and icons: sent by gzip to whoever takes it, compressed once a process."""

import gzip
import os
import threading
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

PACKED: Final = frozenset({".js", ".css", ".svg"})


class CompressedFiles(StaticFiles):
    """Static files; what is text is also kept compressed, by its path and the time it was written."""

    def __init__(self, *, directory: Path) -> None:
        super().__init__(directory=directory)
        self._packed: dict[tuple[str, float], bytes] = {}
        self._lock = threading.Lock()

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return the file, its compressed form, or that it is the one the browser has."""
        plain = super().file_response(full_path, stat_result, scope, status_code)
        if Path(full_path).suffix not in PACKED:
            return plain
        # One tag for both forms: weak, since their bytes differ.
        plain.headers["etag"] = f"W/{plain.headers['etag'].removeprefix('W/')}"
        plain.headers.add_vary_header("Accept-Encoding")
        if isinstance(plain, NotModifiedResponse) or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            return plain
        headers = {
            name: value for name, value in plain.headers.items() if name not in {"content-length", "accept-ranges"}
        }
        return Response(
            self._gzip(Path(full_path), stat_result.st_mtime), headers={**headers, "Content-Encoding": "gzip"}
        )

    def _gzip(self, path: Path, written: float) -> bytes:
        with self._lock:
            place = (str(path), written)
            if place not in self._packed:
                self._packed[place] = gzip.compress(path.read_bytes(), 9, mtime=0)
            return self._packed[place]
