"""The pages, one file a family."""

from typing import Final

from fastapi import APIRouter

from portal.views import (
    account,
    audit,
    consult,
    dry_runs,
    findings,
    health,
    insights,
    invitations,
    login,
    models,
    more,
    nodes,
    opinions,
    people,
    reading,
    reading_actions,
    reading_geometry,
    reports,
    rounds,
    schedules,
    turnaround,
    worklist,
)

ROUTERS: Final[tuple[APIRouter, ...]] = tuple(
    module.router
    for module in (
        health,
        login,
        invitations,
        account,
        worklist,
        reading,
        reading_actions,
        reading_geometry,
        opinions,
        findings,
        consult,
        more,
        reports,
        insights,
        rounds,
        dry_runs,
        schedules,
        models,
        nodes,
        turnaround,
        people,
        audit,
    )
)
