"""What happened at each kill, for docs/recovery.md."""

import json
import os
from pathlib import Path


def write_down(victim: str, **facts: object) -> None:
    """Append a line to the file that ``HEMATOVISION_KILL_TABLE`` names, if it does."""
    if path := os.environ.get("HEMATOVISION_KILL_TABLE"):
        with Path(path).open("a", encoding="utf-8") as out:
            out.write(json.dumps({"victim": victim, **facts}) + "\n")
