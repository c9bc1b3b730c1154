"""A centre with a thousand cases, and hospitals and people whose names are as long as such names get."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlmodel import Session

from server.models import Case, Hospital, User
from server.models.base import utc_now
from shared.contracts.case import CaseState, Priority
from tests.factories import CROCKFORD
from tests.portal.drawn import draw_smears, send_case
from tests.portal.factories import Network, add_hospital, staffed

CASES: Final = 1000
HOSPITALS: Final = {
    "a": "Universitätsklinikum Schleswig-Holstein, Institut für Klinische Chemie und Laboratoriumsmedizin, Lübeck",
    "b": "Hospital Universitario Nuestra Señora de la Candelaria, Servicio de Hematología y Hemoterapia",
    "c": "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch Community Hospital",
}
PEOPLE: Final = {
    "reader": "Prof. Dr. med. Maximiliane Freifrau von Hohenstein-Oberlauringen",
    "second": "Dra. María del Carmen Fernández-Villaverde y Rodríguez de la Borbolla",
}
_WAITS: Final = {Priority.STAT: 55, Priority.URGENT: 230, Priority.ROUTINE: 1400}


def crowded(folder: Path) -> Network:
    """Return the centre: one case of each hospital as it was sent, the others are copies of its row."""
    network = staffed(folder)
    for hospital in HOSPITALS:
        add_hospital(network, hospital)
    drawn = [one for one in draw_smears() if one.smear.fields and one.smear.flags]
    for place, hospital in enumerate(HOSPITALS):
        send_case(network, hospital, drawn[place % len(drawn)], minutes_ago=90)
    with network.centre.runtime.database.session() as session:
        for hospital, name in HOSPITALS.items():
            session.get_one(Hospital, hospital).name = name
        for person, name in PEOPLE.items():
            session.get_one(User, network.people[person].user_id).display_name = name
        copy_cases(session, network, CASES - len(network.cases))
    return network


def copy_cases(session: Session, network: Network, count: int) -> None:
    """Add copies of the sent cases' rows: other ids, priorities, times; some claimed, some signed in the last month."""
    chance = random.Random(7)
    sent = [session.get_one(Case, case_id) for case_id in network.cases]
    for _ in range(count):
        row = Case(**chance.choice(sent).model_dump())
        row.patient_pseudonym = f"{chance.getrandbits(128):032x}"
        row.id = "HV-" + "".join(chance.choice(CROCKFORD) for _ in range(8))
        row.priority = chance.choices(list(Priority), weights=[1, 3, 12])[0]
        waited = timedelta(minutes=chance.uniform(1, _WAITS[row.priority]))
        row.received_at, row.doubtful_count = utc_now() - waited, chance.randint(0, 14)
        row.due_at = row.received_at + timedelta(minutes=_WAITS[row.priority])
        if chance.random() < 0.06:
            row.state, row.claimed_by = CaseState.CLAIMED, network.people["second"].user_id
            row.claimed_at, row.lease_until = utc_now(), utc_now() + timedelta(minutes=20)
        elif chance.random() < 0.3:
            row.signed_at = row.received_at = utc_now() - timedelta(days=chance.uniform(0, 30))
            took = timedelta(minutes=chance.lognormvariate(0, 0.7) * _WAITS[row.priority] * 0.4)
            row.state, row.received_at = CaseState.CLOSED, row.signed_at - took
            row.due_at, row.claimed_at = (
                row.received_at + timedelta(minutes=_WAITS[row.priority]),
                row.received_at + took / 2,
            )
        session.add(row)
