"""How far hospitals lie apart before a launch: by class mix, and who is told."""

from collections.abc import Iterator

import pytest
from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.federation import service
from server.federation.drift import distances, drift
from shared.contracts.errors import ForbiddenError
from tests.server.federation.world import COORDINATOR, census, new_database, node_of, person

CLERK = person(Role.HOSPITAL_IT, "north")


@pytest.fixture
def session() -> Iterator[Session]:
    with new_database(hospitals=("north", "south", "west")).session() as session:
        yield session


def _mixes(session: Session, who: Principal) -> dict[str, float | None]:
    found = drift(session, who, service.census(session, who))
    assert all(one.recent == [] for one in found)
    return {one.hospital_id: one.mix for one in found}


def test_distance_is_to_all_others_together_whatever_the_sizes() -> None:
    found = distances({
        "north": census(neutrophil=30, lymphocyte=10),
        "south": census(neutrophil=100, lymphocyte=100),
        "west": census(neutrophil=20, lymphocyte=180),
    })  # fmt: skip
    assert found == {
        "north": pytest.approx(0.75 - 120 / 400),
        "south": pytest.approx(0.5 - 50 / 240),
        "west": pytest.approx(0.9 - 110 / 240),
    }


def test_the_same_mix_is_no_distance_and_no_class_in_common_is_all_of_it() -> None:
    same = distances({"north": census(neutrophil=3, lymphocyte=1), "south": census(neutrophil=300, lymphocyte=100)})
    assert same == {"north": 0.0, "south": 0.0}
    assert distances({"north": census(neutrophil=3), "south": census(lymphocyte=9)}) == {"north": 1.0, "south": 1.0}


def test_finer_classes_are_no_distance_where_another_labels_the_whole() -> None:
    found = distances({"north": census(neutrophil=10), "south": census(band_neutrophil=4, segmented_neutrophil=6)})
    assert found == {"north": 0.0, "south": 0.0}


def test_who_has_nobody_to_be_held_against_has_no_distance() -> None:
    assert distances({"north": census(neutrophil=10)}) == {"north": None}
    assert distances({"north": census(neutrophil=10), "south": census()}) == {"north": None, "south": None}
    three = distances({"north": census(neutrophil=10), "south": census(), "west": census(neutrophil=1)})
    assert three == {"north": 0.0, "south": None, "west": 0.0}


def test_hospital_it_sees_its_own_distance_where_it_tells_of_no_other_hospital_alone(session: Session) -> None:
    service.store_census(session, node_of("north"), census(neutrophil=10))
    service.store_census(session, node_of("south"), census(neutrophil=5, lymphocyte=5))
    assert _mixes(session, COORDINATOR) == {"north": 0.5, "south": 0.5}
    assert _mixes(session, CLERK) == {"north": None}
    service.store_census(session, node_of("west"), census(neutrophil=10))
    assert _mixes(session, COORDINATOR)["north"] == 0.25
    assert _mixes(session, CLERK) == {"north": 0.25}


def test_readers_are_not_told(session: Session) -> None:
    with pytest.raises(ForbiddenError):
        drift(session, person(Role.HEMATOLOGIST), [])
