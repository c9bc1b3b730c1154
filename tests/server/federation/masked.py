"""Sites in memory that answer secure aggregation by the relay's own functions, each in a home of its own."""

from collections.abc import Callable
from pathlib import Path

from client_node.relay import masking
from server.federation.fleet import Answer, Ask
from shared.contracts.errors import HematovisionError
from shared.contracts.masking import KeysRequest, SharesRequest, UnmaskRequest
from shared.contracts.training import Refusal, TrainReply, TrainRequest
from tests.server.federation.fleet import Site

Steps = Callable[[str], bool]


def masks(node_id: int, home: Path, trains: Site, *, answers: Steps = lambda _kind: True, least: int = 2) -> Site:
    """Return a site that trains as ``trains`` does, under masks; silent where ``answers`` says no to a kind."""
    home.mkdir(parents=True, exist_ok=True)

    def site(ask: Ask) -> Answer | None:
        request = ask.request
        if not answers(request.kind):
            return None
        try:
            if isinstance(request, KeysRequest | SharesRequest | UnmaskRequest):
                return Answer(node_id, masking.take(home, request, least=least).model_dump_json(), b"")
            if not isinstance(request, TrainRequest):
                return trains(ask)
            assert request.masking is not None
            kept = masking.opened(home, request.masking, least=least)
            answer = trains(ask)
            assert answer is not None
            reply = TrainReply.model_validate_json(answer.reply)
            vector = masking.masked(home, kept, ask.tensors, answer.tensors, taught=reply.boxes > 0)
            return Answer(node_id, answer.reply, vector)
        except HematovisionError as error:
            return Answer(node_id, Refusal(code=error.code, reason=error.message).model_dump_json(), b"")

    return site
