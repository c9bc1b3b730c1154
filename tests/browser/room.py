"""A page at the reading room of a case, as tests hold it."""

from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect

from server.accounts import sessions
from server.cases import service as cases
from server.cases.schemas import CaseView, CellView
from shared.contracts.ontology import CellClass
from tests.portal.factories import Network

READY = "#selected b"
"""The room takes keys and pointers: it says which cell is chosen."""

SIGNED_OUT = ("401", "failed to load")
"""What a browser complains of once a session has ended: of requests, and of tiles that were on their way."""

_PAUSE_MS = 25
_TRIES = 800


@dataclass
class Room:
    """A page at the reading room of a case; ``forgiven``: words of what the browser may complain about."""

    page: Page
    network: Network
    forgiven: list[str]

    @property
    def case_id(self) -> str:
        """The newest case."""
        return self.network.cases[-1]

    def case(self) -> CaseView:
        """The case as the centre has it."""
        with self.network.centre.runtime.database.session(read_only=True) as session:
            return cases.case_view(session, self.network.people["reader"], self.case_id)

    def chosen(self) -> str:
        """Which cell is chosen."""
        return self.page.locator('.tile[aria-selected="true"]').first.get_attribute("data-cell") or ""

    def saved(self) -> None:
        """Wait until the centre has it all."""
        expect(self.page.locator("#saved")).to_have_text("saved")

    def nothing_waits(self) -> None:
        """Wait until no act is on its way, seen or not; `wait_for_function` is against the policy of the pages."""
        for _ in range(_TRIES):
            if not self.page.evaluate("Object.keys(localStorage).some((key) => key.startsWith('hv-acts/'))"):
                return
            self.page.wait_for_timeout(_PAUSE_MS)  # of this process: a page's own clock may stand still in a test
        raise AssertionError("acts still wait")

    def rests(self) -> None:
        """Wait until the page sends nothing by itself.

        A group that counts as seen just after the session has ended is refused, and the dialog that says so takes the
        focus from the field that a test writes in.
        """
        expect(self.page.locator(".unseen")).to_have_count(0)
        self.nothing_waits()

    def end_sessions(self) -> None:
        """End the reader's sessions, as an administrator does; the page learns of it by itself."""
        people = self.network.people
        with self.network.centre.runtime.database.session() as session:
            sessions.end_of(session, people["admin"], people["reader"].user_id, None)

    def cell(self, cell_id: str) -> CellView:
        """One cell as the centre has it."""
        return next(one for one in self.case().cells if one.cell_id == cell_id)

    def classes(self) -> dict[str, CellClass]:
        """Every standing cell's class as the centre has it."""
        return {cell.cell_id: cell.current_class for cell in self.case().cells}

    def chosen_all(self) -> list[str]:
        """All chosen cells, in reading order."""
        tiles = self.page.locator('.tile[aria-selected="true"]')
        return [str(tiles.nth(at).get_attribute("data-cell")) for at in range(tiles.count())]

    def tile(self, cell_id: str) -> Locator:
        """A cell in the gallery."""
        return self.page.locator(f'.tile[data-cell="{cell_id}"]')

    def order(self) -> list[str]:
        """Every cell, in reading order."""
        tiles = self.page.locator(".tile")
        return [str(tiles.nth(at).get_attribute("data-cell")) for at in range(tiles.count())]

    def tell_nothing_of(self, *words: str) -> None:
        """Leave out complaints that a test brings about on purpose, also those still to come of what is on its way."""
        self.forgiven.extend(words)
