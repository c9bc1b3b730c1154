"""In which form a run's tensors travel: packed where every hospital that is asked reads it, else as fp16."""

from collections.abc import Iterable, Mapping

from server.federation.book import Plan, RunBook
from server.federation.privacy import Measure
from server.federation.start import base_tensors
from server.federation.strategies.port import Sent
from server.federation.strategies.tensors import Tensors, wire_tensors
from server.runtime import Runtime
from shared.contracts.enrolment import PACKED_PROTOCOL
from shared.contracts.training import TensorForm
from shared.packing import Reference, pack, pretrained

_PACKED = "Tensors travel packed"
_HALF = "Tensors travel as fp16"
_MASKED = f"{_HALF}: secure aggregation masks updates in a form of its own"
_OTHER_BASE = f"{_HALF}: the centre has other base weights than the run was launched with"


class Wire:
    """Makes what is sent of a round's model. Nothing of a round is kept for the next but what both sides begin with."""

    def __init__(self, runtime: Runtime, book: RunBook) -> None:
        self._runtime = runtime
        self._book = book
        self._base: Reference | None = None
        self._said = ""

    def send(
        self, plan: Plan, number: int, sites: Mapping[int, str], tensors: Tensors, state: Tensors
    ) -> tuple[TensorForm, bytes, Sent]:
        """Return the form, the body and what was sent with it; the log book says the form where it has changed."""
        base, why = self._reads_packed(plan, sites)
        if why != self._said:
            self._said = why
            self._book.event("network", why)  # it may name hospitals, which is not for each other's staff
        if base is None:
            body = wire_tensors(tensors)
            return TensorForm.HALF, body, Sent.of(number, body, tensors, state)
        body = pack(tensors, base)
        return TensorForm.PACKED, body, Sent.packed(number, body, base, tensors, state)

    def _reads_packed(self, plan: Plan, sites: Mapping[int, str]) -> tuple[Reference | None, str]:
        """Return what is packed against (None: it is not), and why in a sentence."""
        if plan.privacy.measure is Measure.SECURE_AGGREGATION:
            return None, _MASKED
        older = sorted(sites[node] for node in older_nodes(self._book.protocols(), sites))
        if older:
            verb = "does" if len(older) == 1 else "do"
            return None, f"{_HALF}: {', '.join(older)} {verb} not read the packed form; update their nodes"
        if self._base is None:
            start, base_sha256 = base_tensors(self._runtime.store, plan.recipe)
            if base_sha256 != plan.base_sha256:
                return None, _OTHER_BASE
            self._base = pretrained(start)
        return self._base, _PACKED


def older_nodes(protocols: Mapping[int, int], nodes: Iterable[int]) -> list[int]:
    """Return those of ``nodes`` whose last heartbeat does not say that they read packed tensors."""
    return [node for node in nodes if protocols.get(node, 0) < PACKED_PROTOCOL]
