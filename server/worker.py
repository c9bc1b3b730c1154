"""Celery's composition root: ``celery -A server.worker worker`` and ``celery -A server.worker beat``.

A domain's ``tasks.py`` knows no Celery. It exports ``TASKS`` (kind → function(runtime, payload)) and, if it wants to be
called by the clock, ``PERIODIC`` (kind → seconds). Here each kind becomes a Celery task that takes an outbox row's id;
what is periodic runs without a row. The folder of the centre comes from ``HEMATOVISION_SERVER_HOME``.
"""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging

from server.outbox import service as outbox
from server.runtime import Runtime, build_runtime
from server.settings import get_settings
from shared.logging import configure_logging

log = structlog.get_logger(__name__)
Task = Callable[[Runtime, dict[str, Any]], None]

DOMAINS = ("audit", "hospitals", "cases", "consult", "reports", "federation", "registry", "insights")
DISPATCH, DISPATCH_SECONDS = "outbox.dispatch", 1.0
_PERIODIC_PREFIX = "periodic."


@cache
def runtime() -> Runtime:
    """Return this process's runtime; built on first use, so that a pool's child opens its own connections."""
    return build_runtime(get_settings())


@setup_logging.connect  # type: ignore[untyped-decorator] # Celery ships no types
def set_up_logging(**_given: object) -> None:
    """Log the way all our processes do; Celery then leaves logging alone."""
    settings = get_settings()
    configure_logging("worker", json=settings.log_json, level=settings.log_level)


def configuration() -> dict[str, Any]:
    """Return Celery's settings; read when Celery first needs them."""
    settings = get_settings()
    return {
        "broker_url": settings.broker_url.get_secret_value(),
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # A killed worker's message comes back after visibility + interval; the outbox lease bridges longer work.
            "visibility_timeout": 30,
            "unacked_restore_interval": 3,
            "unacked_restore_throttle": 1,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_concurrency,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "timezone": "UTC",
        "beat_schedule": _schedule(),
        "beat_schedule_filename": str(settings.home / "beat-schedule"),
        "beat_max_loop_interval": 1,
    }


def domain_tasks() -> tuple[dict[str, Task], dict[str, float]]:
    """Return all tasks and all periods of the domains."""
    tasks: dict[str, Task] = {}
    periods: dict[str, float] = {}
    for domain in DOMAINS:
        name = f"server.{domain}.tasks"
        if importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        tasks |= module.TASKS
        periods |= getattr(module, "PERIODIC", {})
    return tasks, periods


def _schedule() -> dict[str, Any]:
    periods = {DISPATCH: DISPATCH_SECONDS} | {f"{_PERIODIC_PREFIX}{kind}": every for kind, every in PERIODIC.items()}
    # Nobody needs yesterday's tick: while the workers are away, ticks do not pile up.
    return {
        name: {"task": name, "schedule": every, "options": {"expires": max(every, 2.0)}}
        for name, every in periods.items()
    }


def add_outbox_task(kind: str, function: Task) -> None:
    """Register ``function`` as the task ``kind``, which takes an outbox row's id."""

    @celery_app.task(name=kind)  # type: ignore[untyped-decorator] # Celery ships no types
    def carry_out(entry_id: int) -> None:
        outbox.run_entry(runtime().database, entry_id, lambda payload: function(runtime(), payload))


def _periodic_task(name: str, function: Task) -> None:
    alone = threading.Lock()

    @celery_app.task(name=name, acks_late=False)  # type: ignore[untyped-decorator] # Celery ships no types
    def tick() -> None:
        if not alone.acquire(blocking=False):
            return  # the tick before is still at it
        try:
            function(runtime(), {})
        finally:
            alone.release()


def _dispatch(current: Runtime, _payload: dict[str, Any]) -> None:
    outbox.dispatch_pending(current.database, lambda kind, entry_id: celery_app.send_task(kind, args=[entry_id]))


celery_app = Celery("hematovision", set_as_current=False)
celery_app.add_defaults(configuration)
TASKS, PERIODIC = domain_tasks()
for _kind, _function in TASKS.items():
    add_outbox_task(_kind, _function)
for _kind in PERIODIC:
    _periodic_task(f"{_PERIODIC_PREFIX}{_kind}", TASKS[_kind])
_periodic_task(DISPATCH, _dispatch)
