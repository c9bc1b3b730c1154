"""The product's worker with one more task, which takes as long as its test wants."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from server.outbox import service as outbox
from server.runtime import Runtime
from server.worker import add_outbox_task, celery_app

KIND = "test.slow"
__all__ = ["KIND", "celery_app"]

outbox.LEASE = timedelta(seconds=2)


def slow(_runtime: Runtime, payload: dict[str, Any]) -> None:
    """Note the start, wait for the file ``go``, note the end."""
    folder = Path(payload["folder"])
    with (folder / "started").open("a") as log:
        log.write("started\n")
    while not (folder / "go").exists():
        time.sleep(0.05)
    with (folder / "finished").open("a") as log:
        log.write("finished\n")


add_outbox_task(KIND, slow)
