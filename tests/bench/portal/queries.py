"""How often list pages ask the database, with 3 rows and with 300."""

from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi.testclient import TestClient

from portal.main import create_app
from tests.bench.portal.section import Measured, Options, Section, figure
from tests.portal.client import Browser
from tests.portal.small import small_centre
from tests.portal.test_query_counts import FEW, LISTS, MANY, List, asked


def measure(options: Options) -> Measured:
    """Count the questions of each list page, at 3 rows and at 300; the goal is no difference."""
    rows = []
    for one in LISTS:
        few, many = counts(one)
        rows.append(figure(f"{one.path}: queries more at {MANY} rows than at {FEW}", many - few, goal=0, n=2))
    return Measured(rows)


def counts(one: List) -> tuple[int, int]:
    """Return how many questions a page asks at the two lengths."""
    with TemporaryDirectory(prefix="hematovision-bench-") as folder:
        network = small_centre(Path(folder))
        with TestClient(create_app(network.centre.runtime), follow_redirects=False) as client:
            visitor = Browser(client).sign_in(one.person)
            found = []
            for numbers in (range(FEW), range(FEW, MANY)):
                with network.centre.runtime.database.session() as session:
                    for number in numbers:
                        one.add(session, network, number)
                found.append(asked(visitor, network, one.path)[0])
        network.centre.runtime.database.dispose()
    return found[0], found[1]


SECTION = Section(
    "queries",
    "Questions to the database",
    "Each list page is opened with 3 rows and with 300; the statements that it sends are counted. A page that asks "
    "once a row would grow slow as the centre fills.",
    measure,
    (15, 15),
)
