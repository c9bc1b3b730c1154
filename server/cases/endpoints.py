"""The node API of cases: ask for upload addresses, commit, ask where a case stands."""

from typing import Annotated

from fastapi import APIRouter, Path

from server.cases import grants, ingest, service
from server.deps import CommittingRoute, RuntimeDep, SessionDep
from server.hospitals.auth import CurrentNode
from shared.contracts.case import CaseReceipt, GrantRequest, Grants

router = APIRouter(prefix="/api/node/v1/cases", tags=["cases"], route_class=CommittingRoute)

CaseIdPath = Annotated[str, Path(pattern=r"^HV-[0-9A-HJKMNP-TV-Z]{8}$")]


@router.post("/{case_id}/grants")
def ask_for_grants(
    case_id: CaseIdPath, request: GrantRequest, node: CurrentNode, session: SessionDep, runtime: RuntimeDep
) -> Grants:
    """Give addresses to upload the case's parts to."""
    return grants.grant(session, runtime.store, hospital_id=node.hospital_id, case_id=case_id, request=request)


@router.post("/{case_id}/commit", status_code=202)
def commit(case_id: CaseIdPath, node: CurrentNode, session: SessionDep) -> CaseReceipt:
    """Note that the manifest is uploaded; the case is taken in soon after. Repeating it is harmless."""
    receipt = service.receipt(session, hospital_id=node.hospital_id, case_id=case_id)
    if receipt.state is None:
        ingest.commit_notice(session, hospital_id=node.hospital_id, case_id=case_id)
    return receipt


@router.get("/{case_id}")
def receipt(case_id: CaseIdPath, node: CurrentNode, session: SessionDep) -> CaseReceipt:
    """Say where the case stands."""
    return service.receipt(session, hospital_id=node.hospital_id, case_id=case_id)
