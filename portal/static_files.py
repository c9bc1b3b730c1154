"""Scripts, styles and icons: packed once a process, and under an address that changes with them.

Pages name them below ``/static/v-<digest of all of them>/``, so that a browser keeps them for ever and asks about none;
modules import each other by relative addresses and stay below it. An address of before still leads to the newest.
"""

import gzip
import hashlib
import os
import re
import threading
from pathlib import Path
from typing import Final

from jinja2.ext import Extension
from rjsmin import jsmin
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).parent / "static"
PACKED: Final = frozenset({".js", ".css", ".svg"})
FOR_EVER: Final = "public, max-age=31536000, immutable"
_CONDITIONS: Final = ("if-none-match", "if-modified-since", "range")
_VERSIONED: Final = re.compile(r"^(v-[0-9a-f]{12})/")


def version_of(folder: Path) -> str:
    """Return a name for the files of a folder as they are: another one as soon as one of them changes."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return f"v-{digest.hexdigest()[:12]}"


VERSION: Final = version_of(STATIC)


def packed(path: Path) -> bytes:
    """Return a file as it travels, by gzip; a script of ours without its comments and indentation.

    What a browser gets that asks for no compression is the file as it was written.
    """
    content = path.read_bytes()
    if path.suffix == ".js" and "vendor" not in path.parts:
        content = bytes(jsmin(content))
    return gzip.compress(content, 9, mtime=0)


class VersionedAssets(Extension):
    """Jinja: ``="/static/…"`` in a template names the files as they are now."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:  # noqa: ARG002 - Jinja's signature
        """Put the version into the addresses, once a template."""
        return source.replace('="/static/', f'="/static/{VERSION}/')


class CompressedFiles(StaticFiles):
    """Static files; what is text is also kept compressed, by its path and the time it was written."""

    def __init__(self, *, directory: Path, version: str = VERSION) -> None:
        super().__init__(directory=directory)
        self._version = version
        self._packed: dict[tuple[str, float], bytes] = {}
        self._ready: dict[str, tuple[bytes, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def get_path(self, scope: Scope) -> str:
        """Return the file's path, without the version that an address names."""
        return _VERSIONED.sub("", super().get_path(scope))

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return what an address names; compressed files of this version are ready to send: they cannot change."""
        headers = Headers(scope=scope)
        if scope["method"] != "GET" or not self._is_present(scope) or any(name in headers for name in _CONDITIONS):
            return await super().get_response(path, scope)
        if "gzip" in headers.get("accept-encoding", "") and path in self._ready:
            content, kept = self._ready[path]
            return Response(content, headers=kept)
        response = await super().get_response(path, scope)
        if response.headers.get("content-encoding") == "gzip":
            self._ready[path] = bytes(response.body), dict(response.headers)
        return response

    def _is_present(self, scope: Scope) -> bool:
        named = _VERSIONED.match(super().get_path(scope))
        return named is not None and named[1] == self._version

    def file_response(
        self, full_path: os.PathLike[str] | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return the file, its compressed form, or that it is the one the browser has."""
        plain = super().file_response(full_path, stat_result, scope, status_code)
        if self._is_present(scope):
            plain.headers["cache-control"] = FOR_EVER
        if Path(full_path).suffix not in PACKED:
            return plain
        # One tag for both forms: weak, since their bytes differ.
        plain.headers["etag"] = f"W/{plain.headers['etag'].removeprefix('W/')}"
        plain.headers.add_vary_header("Accept-Encoding")
        if isinstance(plain, NotModifiedResponse) or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            return plain
        unfit = {"content-length", "accept-ranges"}
        headers = {name: value for name, value in plain.headers.items() if name not in unfit}
        content = self._gzip(Path(full_path), stat_result.st_mtime)
        return Response(content, headers={**headers, "Content-Encoding": "gzip"})

    def _gzip(self, path: Path, written: float) -> bytes:
        with self._lock:
            place = (str(path), written)
            if place not in self._packed:
                self._packed[place] = packed(path)
            return self._packed[place]
