"""The pages, one file a family."""

from typing import Final

from fastapi import APIRouter

from portal.views import (
    account,
    audit,
    consult,
    dry_runs,
    health,
    invitations,
    login,
    models,
    more,
    nodes,
    people,
    reading,
    reading_actions,
    reading_geometry,
    reports,
    rounds,
    schedules,
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
        consult,
        more,
        reports,
        rounds,
        dry_runs,
        schedules,
        models,
        nodes,
        people,
        audit,
    )
)
