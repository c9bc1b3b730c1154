"""Composition root of the resident trainer: ``python -m client_node.trainer --home H``.

Answers on the node's local socket with a warm model. It outlives every failed request, and SIGTERM ends it between
two batches.
"""

import argparse
import math
import os
import signal
import sys
from pathlib import Path

import structlog
import torch
from pydantic import TypeAdapter, ValidationError

from client_node.home import NodeHome
from client_node.ipc import Header, Stop, serve, socket_path
from client_node.keys import read_signing_key
from client_node.training.model_store import ModelStore
from client_node.training.service import TrainingService
from client_node.training.turns import Turns
from shared.contracts.errors import DataInvalidError, ExitCode, HematovisionError, UsageError
from shared.contracts.training import DryRunRequest, Request
from shared.logging import configure_logging
from shared.seal import request_digest, seal

_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)

log = structlog.get_logger(__name__)


class TrainerServer:
    """The operations that the trainer's socket answers: ``ping`` and ``federate``; ``models`` is for its service."""

    def __init__(self, home: Path, *, stop: Stop, models: ModelStore | None = None, turns: Turns | None = None) -> None:
        self._home = NodeHome(home)
        self._service = TrainingService(home, stopping=stop.is_set, models=models)
        self._turns = turns or Turns()

    def handle(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Answer one call."""
        operation = header.get("op")
        if operation == "ping":
            return {"ok": True, "busy": self._turns.busy}, b""
        if operation == "federate":
            return self._federate(header, body)
        raise UsageError("The trainer knows ping and federate.")

    def _federate(self, header: Header, body: bytes) -> tuple[Header, bytes]:
        """Answer a request of the centre; its text and the answer's are JSON, and the answer is sealed here.

        The relay, which hands both on, can therefore alter neither without the centre seeing it. It says beside them
        when the centre asked (``asked_at``) and for how many ``seconds`` the answer is awaited, as Flower told it.
        """
        text = header.get("request")
        try:
            request = _REQUEST.validate_json(text if isinstance(text, str) else "")
        except ValidationError as error:
            raise DataInvalidError("The request is not one this node understands; update the node.") from error
        key = read_signing_key(self._home)
        if isinstance(request, DryRunRequest):
            reply, update = self._service.exchange(request, body)
        else:
            asked_at, seconds = _number(header.get("asked_at")), _number(header.get("seconds"))
            with self._turns.taken(request, asked_at=asked_at, seconds=seconds) as turn:
                reply, update = self._service.exchange(request, body, abandoned=turn.abandoned)
        answer = reply.model_dump_json(by_alias=True)
        return {"reply": answer, "seal": seal(key, request_digest(str(text), body), answer, update)}, update


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m client_node.trainer", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the node's home folder")
    parser.add_argument("--json-logs", action="store_true", help="one JSON object a log line")
    arguments = parser.parse_args(argv)
    configure_logging("trainer", json=arguments.json_logs)
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "0") or 0) or (os.cpu_count() or 1)))
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        log.info("trainer.started")
        serve(socket_path(arguments.home, "trainer"), TrainerServer(arguments.home, stop=stop).handle, stop=stop)
    except HematovisionError as error:
        sys.stderr.write(f"{error.message}\n")
        return int(error.exit_code)
    finally:
        stop.close()
    log.info("trainer.stopped")
    return int(ExitCode.OK)


if __name__ == "__main__":
    raise SystemExit(main())
