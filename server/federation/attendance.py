"""Who takes part: waits for hospitals to connect, before a round and after one that lost some; or for the end."""

import time
from dataclasses import dataclass

from server.federation.book import Plan, RunBook
from server.federation.fleet import Fleet
from shared.contracts.errors import RunFailedError

_FIRST_GRACE_SECONDS = 20.0
_GRACE_SECONDS = 3.0
_LOOK_SECONDS = 1.0
_RETURN_SECONDS = 120.0
"""So long a hospital that was lost may take to be connected again before it is asked once more: Flower refuses a
SuperNode for about 60 s after its predecessor was killed, and its agent tries every 15 s."""
_STOP_CHECK_SECONDS = 2.0


class StoppedError(RunFailedError):
    """The coordinator stopped the run."""


@dataclass(slots=True)
class Stop:
    """Looks at the stop flag at most every two seconds: it is asked at every poll."""

    book: RunBook
    looked_at: float = float("-inf")
    asked: bool = False

    def __call__(self) -> bool:
        if not self.asked and time.monotonic() - self.looked_at > _STOP_CHECK_SECONDS:
            self.looked_at = time.monotonic()
            self.asked = self.book.stop_requested()
        return self.asked

    def check(self) -> None:
        """Raise `StoppedError` once the coordinator has stopped the run."""
        if self():
            raise StoppedError("The run was stopped.")


class Attendance:
    """Which hospitals of a run are connected."""

    def __init__(self, book: RunBook, fleet: Fleet, stop: Stop) -> None:
        self._book = book
        self._fleet = fleet
        self._stop = stop
        self._grace = _FIRST_GRACE_SECONDS

    def sample(self, plan: Plan) -> dict[int, str]:
        """Return the approved nodes of those asked that are connected, once enough are; one node for each hospital.

        All of them get a moment to connect, most before the first round; then whoever is there takes part, if
        they are enough.
        """
        begin = time.monotonic()
        while True:
            self._stop.check()
            welcome = self._book.welcome(plan.sites)
            online = self._fleet.online()
            sites = {node: hospital for node, hospital in welcome.items() if node in online}
            hospitals = set(sites.values())
            waited = time.monotonic() - begin
            if len(hospitals) >= plan.min_sites and (len(sites) == len(welcome) or waited > self._grace):
                self._grace = _GRACE_SECONDS
                return {node: hospital for hospital, node in {name: node for node, name in sites.items()}.items()}
            if waited > plan.round_deadline_seconds:
                raise RunFailedError(
                    f"{len(hospitals)} hospitals are connected, {plan.min_sites} are needed; see the nodes page."
                )
            time.sleep(_LOOK_SECONDS)

    def await_return(self, hospitals: set[str]) -> None:
        """Give hospitals that were lost the time to connect again; return at once where they are connected.

        A coordinator who wants the run to pause or to stop does not wait for them.
        """
        end = time.monotonic() + _RETURN_SECONDS
        told = False
        while time.monotonic() < end and not self._book.pause_requested():
            self._stop.check()
            away = self._away(hospitals)
            if not away:
                return
            if not told:
                self._book.event("network", f"Waiting for {', '.join(sorted(away))} to be connected again")
                told = True
            time.sleep(_LOOK_SECONDS)

    def _away(self, hospitals: set[str]) -> set[str]:
        """Return those of the hospitals none of whose approved nodes is connected."""
        welcome, online = self._book.welcome(hospitals), self._fleet.online()
        return set(welcome.values()) - {hospital for node, hospital in welcome.items() if node in online}
