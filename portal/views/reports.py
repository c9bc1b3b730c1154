"""Signed reports and where each is on its way home."""

from itertools import groupby
from operator import attrgetter

from fastapi import APIRouter, Request
from starlette.responses import Response

from portal.access import SignedIn
from portal.rendering import is_partial, page
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.insights import service as insights
from server.reports import service as reports
from server.reports.schemas import ReportView
from server.reviews import amending
from shared.reporting.findings import statements

router = APIRouter(route_class=CommittingRoute)


@router.get("/reports.json", name="reports_json")
def reports_json(session: SessionDep, who: SignedIn) -> list[ReportView]:
    """The reports as data."""
    return reports.list_reports(session, who)


@router.get("/reports", name="reports")
def list_page(request: Request, session: SessionDep, who: SignedIn) -> Response:
    """All reports this person may see."""
    return page(request, "reports/list.html", reports=reports.list_reports(session, who))


@router.get("/reports/{report_id}.pdf", name="report_pdf")
def pdf(session: SessionDep, runtime: RuntimeDep, who: SignedIn, report_id: str) -> Response:
    """The centre's copy, without identity."""
    content = reports.pdf(session, runtime, who, report_id)
    name = f'inline; filename="report-{report_id[:8]}.pdf"'
    return Response(content, media_type="application/pdf", headers={"Content-Disposition": name})


@router.get("/reports/{report_id}", name="report")
def report(request: Request, session: SessionDep, who: SignedIn, report_id: str) -> Response:
    """One report; its way home keeps itself up to date."""
    template = "reports/way.html" if is_partial(request) else "reports/report.html"
    shown = reports.view(session, who, report_id)
    said = statements(shown.record.findings) if shown.record.findings else []
    found = [(part, list(rows)) for part, rows in groupby(said, key=attrgetter("part"))]
    return page(
        request,
        template,
        report=shown,
        findings=found,
        versions=reports.versions(session, who, shown.case_id),
        kinds=amending.KINDS,
        time=insights.case_time(session, who, shown.case_id),
    )
