"""One request of the centre and its answer: checked, asked of the hospital's policy and of the trainer, written down.

Whatever the request is, the answer is a contract's, and what does not keep to the contract or to the policy never
reaches the trainer. A refusal tells the centre why in a public sentence; the ledger keeps the reason in full.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from client_node import ipc
from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.keys import read_signing_key
from client_node.policy import Policy, load_policy, subject_of
from client_node.relay import masking
from client_node.silence import heard
from shared.contracts.errors import (
    ConfigError,
    DataInvalidError,
    HematovisionError,
    PolicyRefusedError,
    ServiceUnavailableError,
    error_from_code,
)
from shared.contracts.masking import (
    MOST_PEERS,
    AnyRequest,
    KeysRequest,
    SharesRequest,
    Step,
    StepReply,
    UnmaskRequest,
    threshold,
)
from shared.contracts.training import (
    CensusReply,
    CensusRequest,
    DryRunReply,
    DryRunRequest,
    EvaluateReply,
    EvaluateRequest,
    Masking,
    Refusal,
    Reply,
    Request,
    TensorForm,
    TrainReply,
    TrainRequest,
)
from shared.packing import check_body
from shared.seal import request_digest, seal
from shared.tensors import check_same_shapes

MAX_REQUEST = 64 * 1024
"""Bytes of a request's text."""
_MAX_REPLY = 256 * 1024
_LONGEST_REASON = 500
_TRAINER_TIMEOUT = float(os.environ.get("HEMATOVISION_TRAINER_TIMEOUT", "3600"))
_TRAINER_BACK = float(os.environ.get("HEMATOVISION_TRAINER_BACK", "120"))
"""Seconds that a trainer which has died is waited for."""
_REQUEST: TypeAdapter[AnyRequest] = TypeAdapter(AnyRequest)
_REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
_EXPECTED: dict[type, type] = {
    TrainRequest: TrainReply,
    EvaluateRequest: EvaluateReply,
    CensusRequest: CensusReply,
    DryRunRequest: DryRunReply,
}
_NOT_SET_UP = "This node is not set up to answer at the moment; its own staff can see why, and the others go on."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: JSON, and tensors in the form that it names, or nothing."""

    text: str
    tensors: bytes
    asked_at: float | None = None
    """When the centre asked, in seconds by its clock, as Flower tells it; None: not known."""
    ends: float | None = None
    """When the centre stops waiting for the answer, by this machine's monotonic clock; None: never."""

    @property
    def header(self) -> ipc.Header:
        """The call that hands it to the trainer now, which may be the second one."""
        left = None if self.ends is None else max(0.0, self.ends - time.monotonic())
        return {"op": "federate", "request": self.text, "asked_at": self.asked_at, "seconds": left}


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it leaves: JSON, the node's seal over it (empty where the node has no key), and tensors."""

    text: str
    seal: str
    tensors: bytes = b""


def answer(home: Path | None, read: Callable[[], Asked], allowed: tuple[type, ...]) -> Given:
    """Return the answer to what ``read`` returns, if it is one of the ``allowed`` kinds of requests; never raises."""
    asked = Asked("", b"")
    request: Request | Step | None = None
    if home is None or not home.is_dir():
        return _refusal(None, asked, None, ServiceUnavailableError("This node's home folder is not set up."))
    try:
        heard(home)
        asked = read()
        request = _request(asked, allowed)
        return _answer(home, asked, request)
    except HematovisionError as error:
        return _refusal(home, asked, request, error)
    except Exception:  # whatever a message holds, the node answers
        log.exception("relay.failed")
        return _refusal(home, asked, request, HematovisionError("This node could not answer; see the node's log."))


def _request(asked: Asked, allowed: tuple[type, ...]) -> Request | Step:
    if len(asked.text) > MAX_REQUEST:
        raise DataInvalidError("The request is not a short text.")
    try:
        request = _REQUEST.validate_json(asked.text.encode())
    except (ValidationError, UnicodeEncodeError) as error:
        raise DataInvalidError("The request is not one this node understands; update the node's software.") from error
    if not isinstance(request, allowed):
        raise DataInvalidError("The request does not fit its message type.")
    if isinstance(request, TrainRequest | EvaluateRequest):
        if not check_body(asked.tensors, _form(request)):
            raise DataInvalidError("The message carries no tensors.")
    elif asked.tensors:
        raise DataInvalidError("The message carries tensors that its request does not need.")
    return request


def _form(request: Request) -> TensorForm:
    return request.form if isinstance(request, TrainRequest) else TensorForm.HALF


def _answer(home: Path, asked: Asked, request: Request | Step) -> Given:
    policy = load_policy(home)
    if isinstance(request, KeysRequest | SharesRequest | UnmaskRequest):
        if isinstance(request, KeysRequest):  # who would not train had better not share keys
            policy.check_train(
                request.train.model_copy(update={"masking": Masking(exchange=request.exchange, shares=())})
            )
        return _written(home, request, _sealed(home, asked, masking.take(home, request, least=_least(policy))))
    if isinstance(request, TrainRequest) and request.masking is not None:
        policy.check_train(request, size=len(asked.tensors))
        return _written(home, request, _train_masked(home, policy, request, request.masking, asked))
    if isinstance(request, DryRunRequest):
        if (reason := policy.why_not(request, size=request.tensor_bytes)) is not None:
            return _written(home, request, _sealed(home, asked, DryRunReply(takes_part=False, reason=reason)))
    else:
        policy.check_train(request, size=len(asked.tensors))
    return _written(home, request, ask_trainer(home, policy, request, asked))


def _least(policy: Policy) -> int:
    return min(policy.training.least_participants, threshold(MOST_PEERS))


def _train_masked(home: Path, policy: Policy, request: TrainRequest, said: Masking, asked: Asked) -> Given:
    """Have the trainer train and return its update under masks; what the trainer sealed stays here.

    The answer tells neither how well the training cells were learnt nor whether fields were: the vector tells the
    latter, under its mask.
    """
    kept = masking.opened(home, said, least=_least(policy))
    given = ask_trainer(home, policy, request, asked)
    reply = TrainReply.model_validate_json(given.text)
    vector = masking.masked(home, kept, asked.tensors, given.tensors, taught=reply.boxes > 0)
    policy.check_update(request, len(vector))
    return _sealed(home, asked, reply.model_copy(update={"train_loss": None, "boxes": 0}), vector)


def ask_trainer(home: Path, policy: Policy, request: Request, asked: Asked) -> Given:
    """Return the trainer's checked answer: its kind fits, its tensors have the shapes that were sent and may leave.

    Raises:
        HematovisionError: the trainer's refusal, under its own code.
        ServiceUnavailableError: the trainer does not run, stopped meanwhile or took too long.
        DataInvalidError: the trainer answered something else than a reply.
    """
    back, tensors = _insistently(home, request, asked)
    text, signed = back.get("reply"), back.get("seal")
    if not isinstance(text, str) or not isinstance(signed, str) or len(text) > _MAX_REPLY:
        raise DataInvalidError("This node's trainer gave an answer that cannot be read.")
    try:
        reply = _REPLY.validate_json(text)
    except ValidationError as error:
        raise DataInvalidError("This node's trainer gave an answer that cannot be read.") from error
    if isinstance(reply, Refusal):
        raise error_from_code(reply.code, reply.reason)
    if not isinstance(reply, _EXPECTED[type(request)]):
        raise DataInvalidError("This node's trainer answered another request.")
    if not isinstance(reply, TrainReply):
        return Given(text, signed)
    form = _form(request)
    check_same_shapes(check_body(tensors, form), check_body(asked.tensors, form))
    policy.check_update(request, len(tensors))
    return Given(text, signed, tensors)


def _insistently(home: Path, request: Request, asked: Asked) -> tuple[ipc.Header, bytes]:
    """Call the trainer, and once more where it died meanwhile: the node's agent starts it again.

    Nobody waits for a question before a launch: its answer is that the trainer does not run.
    """
    socket = ipc.socket_path(home, "trainer")
    patient = isinstance(request, TrainRequest | EvaluateRequest)
    while True:
        try:
            return ipc.call(socket, asked.header, asked.tensors, timeout=_TRAINER_TIMEOUT)
        except (OSError, EOFError, ServiceUnavailableError) as error:
            slow = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
            if slow or not patient or not _comes_back(socket):
                if isinstance(error, HematovisionError):
                    raise
                raise ServiceUnavailableError("This node's trainer does not run at the moment.") from error
            patient = False
            log.warning("relay.trainer_came_back", request=request.kind)


def _comes_back(socket: Path) -> bool:
    """Whether a trainer answers within `_TRAINER_BACK` seconds."""
    end = time.monotonic() + _TRAINER_BACK
    while time.monotonic() < end:
        time.sleep(0.5)
        with suppress(HematovisionError, OSError, EOFError):
            ipc.call(socket, {"op": "ping"}, timeout=5.0)
            return True
    return False


def _written(home: Path, request: Request | Step, given: Given) -> Given:
    """Enter what is about to leave into the hospital's ledger; where that fails, nothing leaves."""
    leaving = given.text.encode() + given.tensors
    Ledger(home).record(
        kind="update" if isinstance(request, TrainRequest | EvaluateRequest | CensusRequest) else "answer",
        subject=_subject(request),
        what=_what(request),
        size=len(leaving),
        sha256=sha256(leaving).hexdigest(),
    )
    return given


def _subject(request: Request | Step) -> str:
    if isinstance(request, KeysRequest):
        return request.train.run_key
    return request.run_key if isinstance(request, SharesRequest | UnmaskRequest) else subject_of(request)


def _what(request: Request | Step) -> str:
    return f"round {request.round}" if isinstance(request, TrainRequest) else request.kind


def _refusal(home: Path | None, asked: Asked, request: Request | Step | None, error: HematovisionError) -> Given:
    log.warning("relay.refused", code=error.code, reason=error.message)
    if home is not None and not isinstance(error, PolicyRefusedError):  # the policy has written its own line
        with suppress(HematovisionError):  # a refusal may leave unrecorded, an update never
            Ledger(home).record_refusal(
                subject=_subject(request) if request else "unreadable request",
                what=_what(request) if request else "",
                code=error.code,
                reason=error.message,
            )
    reason = _NOT_SET_UP if isinstance(error, ConfigError) else error.message[:_LONGEST_REASON]
    return _sealed(home, asked, Refusal(code=error.code, reason=reason))


def _sealed(
    home: Path | None, asked: Asked, reply: Refusal | DryRunReply | TrainReply | StepReply, tensors: bytes = b""
) -> Given:
    """Return an answer of the relay's own, under the node's seal."""
    text = reply.model_dump_json(by_alias=True)
    try:
        key = read_signing_key(NodeHome(home or Path()))
        return Given(text, seal(key, request_digest(asked.text, asked.tensors), text, tensors), tensors)
    except (HematovisionError, UnicodeEncodeError):
        return Given(text, "", tensors)  # the centre takes an unsigned refusal for one, and says so
