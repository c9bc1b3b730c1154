"""The node API of reports: what waits, its sealed content, and the hospital's acknowledgement."""

from fastapi import APIRouter, Response

from server.deps import CommittingRoute, RuntimeDep, SessionDep, WritingSessionDep
from server.hospitals.auth import CurrentNode
from server.reports import service
from shared.contracts.report import Acknowledgement, ReportNotice

router = APIRouter(prefix="/api/node/v1/reports", tags=["reports"], route_class=CommittingRoute)


@router.get("")
def waiting(node: CurrentNode, session: SessionDep) -> list[ReportNotice]:
    """List the reports that the hospital has not acknowledged."""
    return service.waiting(session, hospital_id=node.hospital_id)


@router.get("/{report_id}/content")
def content(report_id: str, node: CurrentNode, session: WritingSessionDep, runtime: RuntimeDep) -> Response:
    """Give the bundle, sealed to the node's key."""
    sealed = service.content(session, runtime, hospital_id=node.hospital_id, node_id=node.node_id, report_id=report_id)
    return Response(sealed, media_type="application/octet-stream")


@router.post("/{report_id}/acknowledgement", status_code=204)
def acknowledge(report_id: str, acknowledgement: Acknowledgement, node: CurrentNode, session: SessionDep) -> None:
    """Take the hospital's word that the report is verified and stored."""
    service.acknowledge(
        session,
        hospital_id=node.hospital_id,
        node_id=node.node_id,
        report_id=report_id,
        acknowledgement=acknowledgement,
    )
