"""Counts on where a reader asks: further fields are looked at, and what they hold is sent as a supplement of the case.

The centre's signature over a request and the hospital's policy are checked first. A supplement is packed once
(``H/outbox/<case id>.<request id>/``), as a case is; killed at any point, the next look goes on with the same bytes.
"""

import base64
import hashlib
import shutil
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import structlog

from client_node import ipc
from client_node.analysis.further import Further
from client_node.cases import bundle
from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox
from client_node.centre import Centre, is_loopback, read_server_keys, send
from client_node.home import NodeHome
from client_node.keys import read_signing_key
from client_node.policy import load_policy
from shared.contracts.analysis import Smear
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import BlobKind, Priority, SealedKey
from shared.contracts.errors import (
    DataInvalidError,
    ForbiddenError,
    HematovisionError,
    NotFoundError,
    NothingToDoError,
    PolicyRefusedError,
    ServiceUnavailableError,
)
from shared.contracts.supplement import (
    MoreAnswer,
    MoreRequest,
    SignedMoreRequest,
    SignedSupplement,
    SupplementBody,
    SupplementManifest,
)
from shared.crypto.envelope import CaseKey, EnvelopePublicKey
from shared.crypto.signing import VerifyKey
from shared.statistics import differential

_ANALYSIS_SECONDS: Final = 1800.0
_GRANT_CHUNK: Final = 400
_TIMEOUT: Final = httpx.Timeout(120.0, connect=10.0)
_REASON: Final = 300
_PLAIN_REASONS: Final = (PolicyRefusedError, NothingToDoError, NotFoundError, DataInvalidError)
"""What the reader is told as it is; anything else is the hospital's own business, or mends itself."""

log = structlog.get_logger(__name__)


def send_more(home: NodeHome | Path, centre: Centre) -> int:
    """Work on every request that waits; return how many supplements the centre was sent."""
    place = NodeHome(home)
    signer = VerifyKey.from_base64(read_server_keys(place).signing)
    waiting, sent = centre.more_requests(), 0
    for signed in waiting:
        try:
            signer.verify(canonical_bytes(signed.request), signed.signature)
            sent += _answer(place, centre, signed)
        except _PLAIN_REASONS as error:
            centre.answer_more(signed.request.request_id, MoreAnswer(taken=False, reason=error.message[:_REASON]))
            log.info("more.refused", request_id=signed.request.request_id, code=error.code)
        except (HematovisionError, OSError) as error:
            code = error.code if isinstance(error, HematovisionError) else type(error).__name__
            log.warning("more.not_sent", request_id=signed.request.request_id, code=code)
    _tidy(place, {f"{signed.request.case_id}.{signed.request.request_id}" for signed in waiting})
    return sent


def _answer(home: NodeHome, centre: Centre, signed: SignedMoreRequest) -> bool:
    request = signed.request
    if request.hospital_id != home.config().hospital_id:
        raise ForbiddenError("The request is for another hospital.")
    parcel = home.parcels / f"{request.case_id}.{request.request_id}"
    if not (parcel / bundle.MANIFEST).is_file():
        _look_and_pack(home, centre, request, parcel)
    centre.answer_more(request.request_id, MoreAnswer(taken=True))
    _upload(home, centre, request, parcel)
    centre.commit_more(request.request_id)
    log.info("more.sent", request_id=request.request_id, case_id=request.case_id)
    return True


def _look_and_pack(home: NodeHome, centre: Centre, request: MoreRequest, parcel: Path) -> None:
    case = Outbox(home).get(request.case_id)
    smear = bundle.load_smear(home, case.smear_id)
    begin = Outbox(home).cells_sent(request.case_id) or request.has_cells
    later = sum(cell.cls.info.counts for cell in smear.cells[begin : request.has_cells])
    policy = load_policy(home)
    policy.check_more(request.case_id, wanted=request.cells, sent_more=later)
    centre.answer_more(request.request_id, MoreAnswer(taken=True))
    header = {
        "op": "more", "smear_id": case.smear_id, "wanted": request.cells,
        "fields": request.has_fields, "cells": request.has_cells, "most": policy.cases.most_more_cells - later,
    }  # fmt: skip
    answer, _ = ipc.call(ipc.socket_path(home.path, "analyser"), header, timeout=_ANALYSIS_SECONDS)
    found = Further.model_validate(answer)
    # What was found for an earlier request and never sent is among it: it may be more than was asked for.
    leaving = bundle.load_smear(home, case.smear_id).cells[found.first_cell : found.cells]
    leaving_white = sum(cell.cls.info.counts for cell in leaving)
    policy.check_more(request.case_id, wanted=leaving_white, sent_more=later)
    partial = home.parcels / f".{parcel.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "blobs").mkdir(mode=0o700, parents=True)
    _write(home, partial, request, case.smear_id, case.priority, found)
    shutil.rmtree(parcel, ignore_errors=True)
    partial.rename(parcel)


def _write(
    home: NodeHome, folder: Path, request: MoreRequest, smear_id: str, priority: Priority, found: Further
) -> None:
    config, whole = home.config(), bundle.load_smear(home, smear_id)
    part = further_part(whole, found, request.case_id)
    key = CaseKey.generate(request.case_id)
    sealed = key.seal_to(EnvelopePublicKey.from_base64(read_server_keys(home).envelope))
    key_json = canonical_bytes(SealedKey(case_id=request.case_id, sealed=base64.b64encode(sealed).decode()))
    (folder / bundle.KEY).write_bytes(key_json)
    fields = range(found.first_field, found.fields)
    images = bundle.images(home.smear(smear_id), fields, part.cells)
    blobs = tuple(
        bundle.seal(folder, key, name=name, kind=kind, media_type=media_type, plain=plain)
        for name, kind, media_type, plain in images
    )
    body = canonical_bytes(SupplementBody(smear=part, first_field=found.first_field))
    manifest = SupplementManifest(
        request_id=request.request_id, case_id=request.case_id, hospital_id=config.hospital_id,
        node_id=config.node_id, priority=priority, created_at=datetime.now(UTC), model_version=found.model_version,
        body=bundle.seal(
            folder, key, name=bundle.BODY, kind=BlobKind.BODY, media_type="application/json", plain=body
        ),
        blobs=blobs, key_sha256=hashlib.sha256(key_json).hexdigest(),
    )  # fmt: skip
    signature = read_signing_key(home).sign(canonical_bytes(manifest))
    (folder / bundle.MANIFEST).write_bytes(canonical_bytes(SignedSupplement(manifest=manifest, signature=signature)))


def further_part(whole: Smear, found: Further, case_id: str) -> Smear:
    """Return what a request found as the centre may see it; flags and quality are the whole smear's."""
    left = bundle.leaving(whole, case_id)
    cells = tuple(
        cell.model_copy(update={"field": None if cell.field is None else cell.field - found.first_field})
        for cell in left.cells[found.first_cell : found.cells]
    )
    return left.model_copy(
        update={
            "fields": left.fields[found.first_field : found.fields],
            "cells": cells,
            "differential": differential(cell.cls for cell in cells),
            "model_version": found.model_version,
        }
    )


def _upload(home: NodeHome, centre: Centre, request: MoreRequest, parcel: Path) -> None:
    """Send every part, the manifest last; sending one again changes nothing."""
    parts, ledger = bundle.parts_of(parcel), Ledger(home)
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=str(home.ca))
    for begin in range(0, len(parts), _GRANT_CHUNK):
        chunk = parts[begin : begin + _GRANT_CHUNK]
        urls = centre.more_grants(request.request_id, tuple(part.name for part in chunk)).urls
        trusted = not is_loopback(next(iter(urls.values())))
        with httpx.Client(verify=context, timeout=_TIMEOUT, trust_env=trusted) as http:
            for part in chunk:
                what = f"supplements/{request.request_id}/{part.name}"
                ledger.record_once(kind="case", subject=request.case_id, what=what, size=part.size, sha256=part.sha256)
                content = (parcel / part.name).read_bytes()
                response = send(http, http.build_request("PUT", urls[part.name], content=content))
                if not response.is_success:
                    raise ServiceUnavailableError(f"The centre's store answered with status {response.status_code}.")


def _tidy(home: NodeHome, waiting: set[str]) -> None:
    """Drop the parcels of requests that are over."""
    for parcel in home.parcels.glob("HV-*.*") if home.parcels.is_dir() else ():
        if parcel.name not in waiting:
            shutil.rmtree(parcel, ignore_errors=True)
