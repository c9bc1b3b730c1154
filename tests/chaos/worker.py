"""What a worker does, in the test's own process."""

from functools import partial

import server.outbox.service as outbox
from server.federation import tasks
from server.runtime import Runtime


def work_off(runtime: Runtime) -> None:
    """Carry out what is due of the federation's tasks."""
    due: list[tuple[str, int]] = []
    outbox.dispatch_pending(runtime.database, lambda kind, entry: due.append((kind, entry)))
    for kind, entry in due:
        outbox.run_entry(runtime.database, entry, partial(tasks.TASKS[kind], runtime))
