"""The Flower ServerApp of the centre: a process that SuperExec starts for each run."""

import time
from collections.abc import Callable, Iterator, Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp

from server.federation.fleet import Answer, Ask
from server.federation.rehearsal import rehearse
from server.federation.rounds import conduct
from server.runtime import build_runtime
from server.settings import get_settings
from shared.contracts.training import EvaluateRequest, TrainRequest
from shared.tensors import ARRAY_NAME, CONFIG_REPLY, CONFIG_REQUEST, CONFIG_SEAL, RECORD_ARRAYS, RECORD_CONFIG, STYPE

_POLL_SECONDS = 0.5

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the run, or ask the question, whose key was put into the run configuration."""
    runtime, fleet, flower_run_id = build_runtime(get_settings()), GridFleet(grid), str(context.run_id)
    if question := str(context.run_config["dry-run-key"]):
        rehearse(runtime, question, fleet, flower_run_id=flower_run_id)
    else:
        conduct(runtime, str(context.run_config["run-key"]), fleet, flower_run_id=flower_run_id)


class GridFleet:
    """The `Fleet` over Flower's grid. Answers are pulled one poll at a time, so that pages see each as it arrives."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def online(self) -> set[int]:
        """Return the connected nodes; see `Fleet`."""
        return set(self._grid.get_node_ids())

    def ask(
        self, asks: Mapping[int, Ask], *, group: str, seconds: float, stopped: Callable[[], bool]
    ) -> Iterator[Answer]:
        """Send, then yield answers as they arrive; see `Fleet`."""
        end = time.monotonic() + seconds
        messages = [_message(node_id, ask, group=group, ttl=seconds) for node_id, ask in asks.items()]
        sent = dict(zip(self._grid.push_messages(messages), asks, strict=True))
        waiting = {message_id for message_id in sent if message_id}
        while waiting and time.monotonic() < end and not stopped():
            for reply in self._grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                # Flower's own word on a lost node does not come from that node.
                lost = sent.get(reply.metadata.reply_to_message_id) if reply.has_error() else None
                yield _answer(reply, reply.metadata.src_node_id if lost is None else lost)
            if waiting:
                time.sleep(_POLL_SECONDS)


def _message(node_id: int, ask: Ask, *, group: str, ttl: float) -> Message:
    content = RecordDict({RECORD_CONFIG: ConfigRecord({CONFIG_REQUEST: ask.text})})
    if ask.tensors:
        array = Array(dtype="uint8", shape=(len(ask.tensors),), stype=STYPE, data=ask.tensors)
        content[RECORD_ARRAYS] = ArrayRecord({ARRAY_NAME: array})
    return Message(content, node_id, _message_type(ask), ttl=ttl, group_id=group)


def _message_type(ask: Ask) -> str:
    if isinstance(ask.request, TrainRequest):
        return MessageType.TRAIN
    if isinstance(ask.request, EvaluateRequest):
        return MessageType.EVALUATE
    return MessageType.QUERY


def _answer(message: Message, node_id: int) -> Answer:
    if message.has_error():
        problem = message.error.reason or f"Flower error {message.error.code}"
        return Answer(node_id, "", b"", problem=problem, offline=message.error.code == ErrorCode.NODE_UNAVAILABLE)
    try:
        config = message.content.config_records[RECORD_CONFIG]
        reply, seal = config[CONFIG_REPLY], config.get(CONFIG_SEAL, "")
        arrays = message.content.array_records.get(RECORD_ARRAYS)
        tensors = bytes(arrays[ARRAY_NAME].data) if arrays else b""
    except KeyError:
        reply = seal = b""
    if not isinstance(reply, str) or not isinstance(seal, str):
        # Not in the agreed form: the node's own doing, and no problem of Flower's, for which it would be asked again.
        return Answer(node_id, "", b"")
    return Answer(node_id, reply, tensors, seal=seal)
