"""Addresses to which a node may upload the parts of one case."""

import re
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from sqlmodel import Session

from server.cases import bundle, repository
from server.models.base import utc_now
from shared.contracts.case import GrantRequest, Grants
from shared.contracts.errors import ConflictError, DataInvalidError
from shared.storage import ObjectStore

VALID: Final = timedelta(minutes=15)
_PART: Final = re.compile(r"key\.json|manifest\.json|blobs/[a-z]+-[A-Za-z0-9_.-]{1,80}")


def check_names(names: Collection[str]) -> None:
    """Return if all of these may be parts of a case.

    Raises:
        DataInvalidError: one may not.
    """
    if any(not _PART.fullmatch(name) for name in names):
        raise DataInvalidError("A name is not a part of a case; update the node's software.")


def grant(session: Session, store: ObjectStore, *, hospital_id: str, case_id: str, request: GrantRequest) -> Grants:
    """Return one short-lived PUT address a part, all below the hospital's own prefix.

    Raises:
        DataInvalidError: a name is not a part of a case.
        ConflictError: the case was taken in already; nothing of it may change any more. Another hospital's case of the
            same id is not told of here: ingest refuses the second one.
    """
    check_names(request.names)
    if repository.get(session, case_id, scope=hospital_id) is not None:
        raise ConflictError("The case was taken in already; its parts cannot change any more.")
    place, now = bundle.prefix(hospital_id, case_id), utc_now()
    urls = {name: store.presign_put(f"{place}/{name}", expires=VALID) for name in request.names}
    return Grants(urls=urls, expires_at=now + VALID)
