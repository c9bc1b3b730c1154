"""What happened at each kill, for docs/recovery.md."""

import json
import os
from pathlib import Path

import pytest

LONG = pytest.mark.skipif(
    not os.environ.get("HEMATOVISION_CHAOS"), reason="every process killed in turn takes half an hour: make chaos"
)


def write_down(victim: str, **facts: object) -> None:
    """Append a line to the file that ``HEMATOVISION_KILL_TABLE`` names, if it does."""
    if path := os.environ.get("HEMATOVISION_KILL_TABLE"):
        with Path(path).open("a", encoding="utf-8") as out:
            out.write(json.dumps({"victim": victim, **facts}) + "\n")
