"""The Flower ClientApp of a node: hands a checked request to the resident trainer and returns its answer.

Flower starts a process for every message, so this module imports neither torch nor anything that reads images, and
has no access to data. The app bundle, the run configuration and the message are input from outside: the run
configuration is ignored, and of a message only what `Asked` holds goes further, see `client_node.relay.exchange`.
"""

import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client_node.relay.exchange import Asked, answer
from shared.contracts.errors import DataInvalidError
from shared.contracts.masking import KeysRequest, SharesRequest, UnmaskRequest
from shared.contracts.training import CensusRequest, DryRunRequest, EvaluateRequest, TrainRequest
from shared.tensors import ARRAY_NAME, CONFIG_REPLY, CONFIG_REQUEST, CONFIG_SEAL, RECORD_ARRAYS, RECORD_CONFIG, STYPE

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
    """Answer what this site could train on, whether it would, or a step of secure aggregation."""
    return _relay(message, context, CensusRequest, DryRunRequest, KeysRequest, SharesRequest, UnmaskRequest)


def _relay(message: Message, context: Context, *allowed: type) -> Message:
    home = context.node_config.get("home")
    given = answer(Path(home) if isinstance(home, str) else None, lambda: _asked(message), allowed)
    content = RecordDict({RECORD_CONFIG: ConfigRecord({CONFIG_REPLY: given.text, CONFIG_SEAL: given.seal})})
    if given.tensors:
        array = Array(dtype="uint8", shape=(len(given.tensors),), stype=STYPE, data=given.tensors)
        content[RECORD_ARRAYS] = ArrayRecord({ARRAY_NAME: array})
    return Message(content, reply_to=message)


def _asked(message: Message) -> Asked:
    """Return the request's text and tensors; a record or key that the agreed form has not is refused, not ignored.

    Flower's own time to live is the round's deadline: the centre does not wait beyond it.
    """
    content, facts = message.content, message.metadata
    if set(content) - {RECORD_ARRAYS} != {RECORD_CONFIG} or RECORD_CONFIG not in content.config_records:
        raise DataInvalidError("The message's records are not those that a request has.")
    config = content.config_records[RECORD_CONFIG]
    if set(config) != {CONFIG_REQUEST}:
        raise DataInvalidError("The message carries no request, or more than one.")
    text = config[CONFIG_REQUEST]
    if not isinstance(text, str):
        raise DataInvalidError("The request is not a text.")
    return Asked(text, _body(content), asked_at=facts.created_at, ends=time.monotonic() + facts.ttl)


def _body(content: RecordDict) -> bytes:
    if RECORD_ARRAYS not in content:
        return b""
    record = content.array_records.get(RECORD_ARRAYS)
    if record is None or set(record) != {ARRAY_NAME} or record[ARRAY_NAME].stype != STYPE:
        raise DataInvalidError("The message's tensors are not in the agreed form.")
    return bytes(record[ARRAY_NAME].data)
