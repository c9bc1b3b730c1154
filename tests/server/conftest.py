"""A centre with two hospitals, its people and one case, for the tests of the server's domains."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.cases.ingest import ingest
from tests.factories import Centre, NodeIdentity, Parcel, centre_key, make_centre, pack


@dataclass(frozen=True)
class Ward:
    """A centre at work: two hospitals, a reader, a second reader, hospital IT of each, and one case of hospital a."""

    centre: Centre
    node: NodeIdentity
    other_node: NodeIdentity
    reader: Principal
    second_reader: Principal
    it: Principal
    other_it: Principal
    coordinator: Principal
    parcel: Parcel

    @property
    def case_id(self) -> str:
        """The case."""
        return self.parcel.case_id


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    """Yield an empty centre."""
    made = make_centre(tmp_path)
    yield made
    made.runtime.database.dispose()


@pytest.fixture
def ward(centre: Centre) -> Ward:
    """Return a centre with a case that is available for reading."""
    node, other_node = centre.add_node("a"), centre.add_node("b")
    parcel = pack(node, centre_key(centre))
    parcel.upload(centre.store)
    ingest(centre.runtime, hospital_id="a", case_id=parcel.case_id)
    return Ward(
        centre=centre,
        node=node,
        other_node=other_node,
        reader=centre.add_person("reader", Role.HEMATOLOGIST, name="Dr. A. Reader"),
        second_reader=centre.add_person("second", Role.HEMATOLOGIST, name="Dr. B. Second"),
        it=centre.add_person("it-a", Role.HOSPITAL_IT, "a"),
        other_it=centre.add_person("it-b", Role.HOSPITAL_IT, "b"),
        coordinator=centre.add_person("coordinator", Role.COORDINATOR),
        parcel=parcel,
    )
