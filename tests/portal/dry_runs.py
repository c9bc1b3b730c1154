"""A dry run that hospitals have answered."""

from typing import Final

from server.federation.fleet import Answer, Ask
from server.federation.rehearsal import rehearse
from server.models import DryRun
from shared.contracts.training import DryRunReply
from shared.seal import request_digest, seal
from tests.portal.factories import Network
from tests.server.federation.fleet import MemoryFleet, Site

NO: Final = "This hospital trains between 20:00-06:00 local time only."


def answer_dry_run(network: Network, key: str, *willing: str) -> None:
    """Let the hospitals answer: those named are willing, the others train at night; `c` is away."""
    runtime = network.centre.runtime
    with runtime.database.session() as session:
        session.get_one(DryRun, key).base_sha256 = "0" * 64
    sites = {
        number: _says(
            network, name, number, DryRunReply(takes_part=name in willing, reason="" if name in willing else NO)
        )
        for number, name in ((1, "a"), (2, "b"))
    }
    rehearse(runtime, key, MemoryFleet(sites), flower_run_id="1", gather_seconds=0)


def _says(network: Network, hospital: str, number: int, reply: DryRunReply) -> Site:
    def site(ask: Ask) -> Answer:
        text = reply.model_dump_json()
        key = network.nodes[hospital].signing
        return Answer(number, text, b"", seal=seal(key, request_digest(ask.text, ask.tensors), text, b""))

    return site
