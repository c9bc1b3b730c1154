"""Watches ``H/incoming``: a folder put there (a smear of a scanner) is analysed, and sent if a rule flags it.

A folder is taken once nothing in it has changed between two looks. It then moves to ``incoming/done`` or
``incoming/failed``; in the latter a file ``WHY.txt`` says why.
"""

from pathlib import Path
from typing import Final

import structlog

from client_node import ipc
from client_node.cases.context import read_context
from client_node.cases.intake import send_flagged
from client_node.home import NodeHome
from client_node.policy import load_policy
from shared.contracts.analysis import AnalysisOutput
from shared.contracts.errors import HematovisionError, ModelInvalidError, NoSpaceError, ServiceUnavailableError

_DONE: Final = "done"
_FAILED: Final = "failed"
_CONTEXT: Final = "context.json"
_ANALYSIS_SECONDS: Final = 3600.0
State = tuple[tuple[str, int, int], ...]

log = structlog.get_logger(__name__)


class Incoming:
    """The watcher of one node; call `look` now and then."""

    def __init__(self, home: NodeHome) -> None:
        self._home = home
        self._seen: dict[str, State] = {}

    def look(self) -> int:
        """Take every folder that has come to rest; return how many."""
        if not self._home.incoming.is_dir():
            return 0
        folders = [folder for folder in sorted(self._home.incoming.iterdir()) if _candidate(folder)]
        now = {folder.name: _state(folder) for folder in folders}
        rested = [folder for folder in folders if now[folder.name] and self._seen.get(folder.name) == now[folder.name]]
        self._seen = now
        for folder in rested:
            self._take(folder)
        return len(rested)

    def _take(self, folder: Path) -> None:
        try:
            self._analyse(folder)
        except (ServiceUnavailableError, ModelInvalidError, NoSpaceError):
            raise  # nothing is wrong with the smear: it waits
        except HematovisionError as error:
            log.warning("incoming.failed", code=error.code)
            moved = self._move(folder, _FAILED)
            (moved / "WHY.txt").write_text(error.message + "\n")
            return
        self._move(folder, _DONE)

    def _analyse(self, folder: Path) -> None:
        file = folder / _CONTEXT
        context = read_context(file if file.is_file() else None)
        header = {"op": "analyze", "paths": [str(folder)], "options": {}}
        answer, _ = ipc.call(ipc.socket_path(self._home.path, "analyser"), header, timeout=_ANALYSIS_SECONDS)
        output = AnalysisOutput.model_validate(answer["output"])
        cases = load_policy(self._home).cases
        if cases.send_flagged and cases.send_incoming:
            send_flagged(self._home, output.smears, context, incoming=True)
        log.info("incoming.analysed", smears=[smear.id for smear in output.smears])

    def _move(self, folder: Path, where: str) -> Path:
        target = self._home.incoming / where / folder.name
        number = 1
        while target.exists():
            number += 1
            target = target.with_name(f"{folder.name}-{number}")
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        return target


def _candidate(folder: Path) -> bool:
    return folder.is_dir() and folder.name not in (_DONE, _FAILED) and not folder.name.startswith(".")


def _state(folder: Path) -> State:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return tuple((str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
