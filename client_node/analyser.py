"""Composition root of the resident analyser: ``python -m client_node.analyser --home H``.

Answers on the node's local socket; the model stays loaded between smears. Training yields to a STAT smear, and to any
smear where both compute on one GPU.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.analysis.service import Analyser, Options
from client_node.ipc import Header, Lease, Stop, serve, socket_path
from shared.contracts.errors import DataInvalidError, ExitCode, HematovisionError, UsageError
from shared.logging import configure_logging
from shared.vision.device import shares_gpu

log = structlog.get_logger(__name__)


class _AnalyzeCall(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    paths: tuple[Path, ...]
    options: Options = Options()


class _MoreCall(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    op: str
    smear_id: str
    wanted: int
    fields: int
    cells: int
    most: int | None = None


class AnalyserServer:
    """The operations that the analyser's socket answers."""

    def __init__(self, home: Path, *, on_gpu: Callable[[str], bool] = shares_gpu) -> None:
        """``on_gpu`` says of an engine, by its name, whether it computes on the GPU that training may use."""
        self._analyser = Analyser(home)
        self._lease = Lease(home)
        self._on_gpu = on_gpu
        # One smear at a time: the runtime uses all the cores it may, and a second one would only wait in memory.
        self._one = threading.Lock()

    def handle(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Answer one call: ``ping``, ``reload`` or ``analyze``."""
        if body:
            raise DataInvalidError("The analyser takes no tensors.")
        operation = header.get("op")
        if operation == "ping":
            return {"ok": True}, b""
        if operation == "reload":
            with self._one:
                return {"version": self._analyser.reload()}, b""
        if operation == "analyze":
            return self._analyze(header), b""
        if operation == "more":
            return self._more(header), b""
        raise UsageError("The analyser knows ping, reload, analyze and more.")

    def _analyze(self, header: Header) -> Header:
        try:
            request = _AnalyzeCall.model_validate(header)
        except ValidationError as error:
            raise UsageError("The analyser was called wrongly: paths and options do not fit.") from error
        with ExitStack() as stack:
            if request.options.stat:
                stack.enter_context(self._lease.urgent())
            stack.enter_context(self._one)
            if not request.options.stat and self._uses_gpu():
                stack.enter_context(self._lease.gpu())
            output = self._analyser.analyze(request.paths, options=request.options)
        return {"output": output.model_dump(mode="json", by_alias=True)}

    def _more(self, header: Header) -> Header:
        try:
            request = _MoreCall.model_validate(header)
        except ValidationError as error:
            raise UsageError("The analyser was called wrongly: smear and cells do not fit.") from error
        with ExitStack() as stack:
            # Somebody waits for it at the microscope's other end: training yields, as to a STAT smear.
            stack.enter_context(self._lease.urgent())
            stack.enter_context(self._one)
            found = self._analyser.look_further(
                request.smear_id, request.wanted, fields=request.fields, cells=request.cells, most=request.most
            )
        return found.model_dump(mode="json")

    def _uses_gpu(self) -> bool:
        try:
            return self._on_gpu(self._analyser.model.engine.name)
        except HematovisionError:
            return False  # the analysis itself will say what is wrong with the model


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m client_node.analyser", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the node's home folder")
    parser.add_argument("--json-logs", action="store_true", help="one JSON object a log line")
    arguments = parser.parse_args(argv)
    home: Path = arguments.home
    configure_logging("analyser", json=arguments.json_logs)
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        log.info("analyser.started")
        serve(socket_path(home, "analyser"), AnalyserServer(home).handle, stop=stop)
    except HematovisionError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    finally:
        stop.close()
    log.info("analyser.stopped")
    return int(ExitCode.OK)


if __name__ == "__main__":
    raise SystemExit(main())
