"""What stands around the sections of the page."""

from pathlib import Path
from typing import Final

from tests.bench.model.page import Front

_METHOD: Final = """\
Real smears of two laboratories, split by group: PBC (3,600 single cells) and BCCD (283 boxes in fields). A federation
here is the trainer's own loop on cached maps of the frozen trunk, the centre's own wire form, checks and strategies,
round for round as `server/federation/rounds.py` conducts them; only the section on processes goes through Flower.
Recipe and strategy are those that a launch starts from (docs/recipe.md) unless a section says otherwise. A missed
goal says **no**; what was tried stands below.

What a federation of any size would ask of the centre can be seen on one machine: `hematovision-server federate
simulate --hospitals 200` shares an imported catalogue (or synthetic smears) out between so many hospitals, lets as
many trainers as it is told work at a time, conducts real rounds with real keys, database and object store, and prints
memory and seconds; `--updates-only --update-mb 20 --hospitals 1000` aggregates synthetic updates.
"""
FRONT: Final = Front(
    "What learning together is worth, and costs",
    "bench-federation",
    "the real smears",
    _METHOD,
    Path(__file__).with_name("notes.toml"),
)
