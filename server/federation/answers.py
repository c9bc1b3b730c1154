"""Reads what a node answered: input from outside, of which every kind of fault becomes one sentence."""

import structlog
from pydantic import TypeAdapter, ValidationError

from server.federation.fleet import Answer
from shared.contracts.errors import DataInvalidError, SignatureInvalidError, error_from_code
from shared.contracts.masking import AnyReply
from shared.contracts.training import Refusal

_REPLY: TypeAdapter[AnyReply] = TypeAdapter(AnyReply)
_MAX_REPLY = 256 * 1024

log = structlog.get_logger(__name__)


def read_reply(answer: Answer) -> AnyReply:
    """Return the reply, once its seal was checked (see `seals`).

    Raises:
        HematovisionError: the node refused (under its own code), did not answer, or what came cannot be used.
    """
    if answer.offline:
        raise DataInvalidError("The node's connection was lost.")
    if answer.problem is not None:
        log.warning("federation.node_error", node_id=answer.node_id, problem=answer.problem)
        raise DataInvalidError("The node's software failed on the request; see the node's log.")
    if len(answer.reply) > _MAX_REPLY:
        raise DataInvalidError("The node's answer is too long.")
    try:
        reply = _REPLY.validate_json(answer.reply)
    except ValidationError as error:
        raise DataInvalidError("The node's answer cannot be read; its software may be of another version.") from error
    if isinstance(reply, Refusal):
        # What a node says is shown and logged: one line, without control characters.
        reason = " ".join("".join(sign if sign.isprintable() else " " for sign in reply.reason).split())
        raise error_from_code(reply.code, f"(unsigned) {reason}" if answer.fault else reason)
    if answer.fault is not None:
        raise SignatureInvalidError(answer.fault)
    return reply
