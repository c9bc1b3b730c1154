"""The Flower ClientApp of a node: hands a checked request to the resident trainer and returns its answer.

Flower starts a process for every message, so this module imports neither torch nor anything that reads images, and
has no access to data. The app bundle, the run configuration and the message are input from outside: the run
configuration is ignored, the request must be one of our contracts, and the tensors are checked by their header before
they go further.
"""

import os
from hashlib import sha256
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from pydantic import TypeAdapter, ValidationError

from client_node import ipc
from client_node.cases.ledger import Ledger
from shared.contracts.errors import DataInvalidError, HematovisionError, ServiceUnavailableError
from shared.contracts.training import (
    CensusReply,
    CensusRequest,
    EvaluateReply,
    EvaluateRequest,
    Refusal,
    Reply,
    Request,
    TrainReply,
    TrainRequest,
)
from shared.tensors import ARRAY_NAME, RECORD_ARRAYS, RECORD_CONFIG, STYPE, check_same_shapes, check_tensors

_MAX_REQUEST = 64 * 1024
_TRAINER_TIMEOUT = float(os.environ.get("HEMATOVISION_TRAINER_TIMEOUT", "3600"))
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round: train on the received tensors."""
    return _relay(message, context, TrainRequest)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate a candidate on this site's held-out groups."""
    return _relay(message, context, EvaluateRequest)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer what this site could train on."""
    return _relay(message, context, CensusRequest)


def _relay(message: Message, context: Context, allowed: type) -> Message:
    try:
        home = _home(context)
        request = _request(message.content, allowed)
        reply, tensors = ask_trainer(home, request, _body(message.content))
        text = reply.model_dump_json(by_alias=True)
        _write_down(home, request, reply, text.encode() + tensors)
    except HematovisionError as error:
        text, tensors = Refusal(code=error.code, reason=error.message).model_dump_json(), b""
    content = RecordDict({RECORD_CONFIG: ConfigRecord({"reply": text})})
    if tensors:
        array = Array(dtype="uint8", shape=(len(tensors),), stype=STYPE, data=tensors)
        content[RECORD_ARRAYS] = ArrayRecord({ARRAY_NAME: array})
    return Message(content, reply_to=message)


def _write_down(home: Path, request: Request, reply: Reply, leaving: bytes) -> None:
    """Enter what is about to leave into the hospital's ledger; where that fails, nothing leaves."""
    refused = isinstance(reply, Refusal)
    Ledger(home).record(
        kind="refusal" if refused else "update",
        subject="census" if isinstance(request, CensusRequest) else request.run_key,
        what=f"round {request.round}" if isinstance(request, TrainRequest) else request.kind,
        size=0 if refused else len(leaving),
        sha256=sha256(leaving).hexdigest(),
        note=reply.code if isinstance(reply, Refusal) else "",
    )


def _home(context: Context) -> Path:
    home = context.node_config.get("home")
    if not isinstance(home, str) or not Path(home).is_dir():
        raise ServiceUnavailableError("This node's home folder is not set up.")
    return Path(home)


def _request(content: RecordDict, allowed: type) -> Request:
    try:
        text = content.config_records[RECORD_CONFIG]["request"]
    except KeyError as error:
        raise DataInvalidError("The message carries no request.") from error
    if not isinstance(text, str) or len(text) > _MAX_REQUEST:
        raise DataInvalidError("The request is not a short text.")
    try:
        request = _REQUEST.validate_json(text)
    except ValidationError as error:
        raise DataInvalidError("The request is not one this node understands; update the node's software.") from error
    if not isinstance(request, allowed):
        raise DataInvalidError("The request does not fit its message type.")
    return request


def _body(content: RecordDict) -> bytes:
    if RECORD_ARRAYS not in content.array_records:
        return b""
    record = content.array_records[RECORD_ARRAYS]
    if set(record) != {ARRAY_NAME} or record[ARRAY_NAME].stype != STYPE:
        raise DataInvalidError("The message's tensors are not in the agreed form.")
    body = record[ARRAY_NAME].data
    check_tensors(body)
    return body


def ask_trainer(home: Path, request: Request, body: bytes) -> tuple[Reply, bytes]:
    """Return the trainer's checked reply to ``request``: its kind fits, its tensors have the shapes that were sent.

    Raises:
        ServiceUnavailableError: the trainer does not run, stopped meanwhile or took too long.
        DataInvalidError: the trainer answered something else than a reply.
    """
    if not isinstance(request, CensusRequest) and not body:
        raise DataInvalidError("The message carries no tensors.")
    header = {"op": "federate", "request": request.model_dump(mode="json", by_alias=True)}
    socket = ipc.socket_path(home, "trainer")
    try:
        answer, tensors = ipc.call(socket, header, body, timeout=_TRAINER_TIMEOUT)
    except (OSError, EOFError) as error:
        raise ServiceUnavailableError("This node's trainer does not run at the moment.") from error
    try:
        reply = _REPLY.validate_python(answer["reply"])
    except (KeyError, ValidationError) as error:
        raise DataInvalidError("This node's trainer gave an answer that cannot be read.") from error
    if isinstance(reply, Refusal):
        return reply, b""
    if not isinstance(reply, _EXPECTED[type(request)]):
        raise DataInvalidError("This node's trainer answered another request.")
    if isinstance(reply, TrainReply):
        check_same_shapes(check_tensors(tensors), check_tensors(body))
        return reply, tensors
    return reply, b""


_EXPECTED: dict[type, type] = {TrainRequest: TrainReply, EvaluateRequest: EvaluateReply, CensusRequest: CensusReply}
