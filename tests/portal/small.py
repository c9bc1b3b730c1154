"""The centre that most tests of the portal start from."""

from pathlib import Path

from server.cases.ingest import ingest
from tests.factories import centre_key, pack
from tests.portal.factories import Network, add_hospital, play_round, register_model, staffed, start_run


def small_centre(folder: Path) -> Network:
    """Return a centre with three hospitals, a finished run with its candidate, and one case."""
    made = staffed(folder)
    for hospital in "abc":
        add_hospital(made, hospital)
    book = start_run(made, rounds=1)
    play_round(made, book, 1)
    register_model(made, book, "hv-1")
    parcel = pack(made.nodes["a"], centre_key(made.centre))
    parcel.upload(made.centre.store)
    ingest(made.centre.runtime, hospital_id="a", case_id=parcel.case_id)
    made.cases.append(parcel.case_id)
    return made
