"""What all scripts weigh on the wire."""

from tests.bench.portal.section import Measured, Options, Section, figure
from tests.portal.scripts import LIMIT, sizes


def measure(_: Options) -> Measured:
    """Compress each script by itself, as the portal sends it."""
    found = sizes()
    heaviest = ", ".join(f"{name} {size / 1000:.1f}" for name, size in list(found.items())[:4])
    rows = [figure("all scripts, gzip, KB", round(sum(found.values()) / 1000, 1), goal=LIMIT / 1000, n=len(found))]
    return Measured(rows, [f"The heaviest, in KB: {heaviest}."])


SECTION = Section(
    "scripts", "Scripts", "Every script of every page, vendored ones too, each by gzip (level 9).", measure, (1, 1)
)
