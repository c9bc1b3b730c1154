"""Who did what: one hash chain per subject, so that readers never queue on one chain, and signed checkpoints.

An entry's hash covers its content and the hash before it: a changed or removed middle entry breaks its chain. A
checkpoint signs the heads that moved since the one before: a tail cut off afterwards shows too.
"""

import hashlib
import json
from typing import Any

from sqlmodel import Session

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.audit import repository
from server.audit.schemas import AuditPage, AuditQuery, AuditVerification, AuditView
from server.models import AuditCheckpoint, AuditEntry
from server.models.base import utc_now
from server.vault.port import Vault
from shared.contracts.errors import ForbiddenError, SignatureInvalidError, UsageError
from shared.crypto.signing import VerifyKey

GENESIS = "0" * 64
MOST_EXPORTED = 50_000
"""Entries in one file."""
_AUDIT_READERS = {Role.AUDITOR, Role.ADMIN, Role.COORDINATOR, Role.HOSPITAL_IT}


class TooMuchError(UsageError):
    """More entries match than a file holds."""


def record(session: Session, *, subject: str, actor: str, action: str, data: dict[str, Any] | None = None) -> None:
    """Append an entry to the subject's chain, in the transaction of the change it tells of.

    ``data`` must be JSON and must not name patients, tokens or keys.
    """
    repository.lock(session, subject)
    head = repository.head(session, subject)
    entry = AuditEntry(
        subject=subject,
        seq=head.seq + 1 if head else 1,
        at=utc_now(),
        actor=actor,
        action=action,
        data=json.loads(json.dumps(data or {}, default=str)),
        previous_hash=head.hash if head else GENESIS,
        hash="",
    )
    entry.hash = _hash(entry)
    repository.add(session, entry)


def checkpoint(session: Session, vault: Vault) -> bool:
    """Sign the heads that moved since the last checkpoint; return whether there were any."""
    earlier = repository.checkpoints(session)
    known = _latest_heads(earlier)
    moved = {entry.subject: _head(entry) for entry in repository.heads(session)}
    moved = {subject: head for subject, head in moved.items() if known.get(subject) != head}
    if not moved:
        return False
    row = AuditCheckpoint(
        at=utc_now(),
        heads=moved,
        previous_signature=earlier[-1].signature if earlier else "",
        signature="",
    )
    row.signature = vault.sign(_checkpoint_bytes(row))
    repository.add(session, row)
    return True


def verify(session: Session, vault: Vault) -> AuditVerification:
    """Check every chain and every checkpoint; each problem names its subject and place."""
    problems: list[str] = []
    hashes: dict[str, dict[int, str]] = {}
    entries, last_seq = 0, 0
    for entry in repository.chains(session):
        entries += 1
        if entry.subject not in hashes:
            hashes[entry.subject], last_seq = {}, 0
        chain = hashes[entry.subject]
        problems += _check_entry(entry, last_seq=last_seq, last_hash=chain.get(last_seq, GENESIS))
        last_seq = entry.seq
        chain[last_seq] = entry.hash
    checkpoints = repository.checkpoints(session)
    problems += _check_checkpoints(checkpoints, hashes, vault.signing_public)
    return AuditVerification(
        ok=not problems, subjects=len(hashes), entries=entries, checkpoints=len(checkpoints), problems=problems
    )


def search(
    session: Session, principal: Principal, subject: str | None = None, text: str | None = None, limit: int = 200
) -> list[AuditView]:
    """Return the newest entries that match; hospital IT sees its own hospital's only."""
    return look(session, principal, AuditQuery(subject=subject or "", text=text or ""), limit=limit).entries


def look(session: Session, principal: Principal, wanted: AuditQuery, *, limit: int = 100) -> AuditPage:
    """Return a page of the entries that match, newest first; hospital IT sees its own hospital's only."""
    _require_reader(principal)
    limit = min(limit, 1000)
    hospital_id = principal.hospital_id if principal.role is Role.HOSPITAL_IT else None
    found = repository.search(session, wanted, hospital_id=hospital_id, limit=limit + 1)
    shown = [_view(entry, name) for entry, name in found[:limit]]
    return AuditPage(entries=shown, older=shown[-1].id if len(found) > limit else None)


def export(session: Session, principal: Principal, query: AuditQuery, *, wanted: dict[str, str]) -> list[AuditView]:
    """Return all entries that match, newest first, and record that they were taken, and by which words (``wanted``).

    Raises:
        ForbiddenError: the role does not read the audit.
        TooMuchError: more match than a file holds.
    """
    _require_reader(principal)
    hospital_id = principal.hospital_id if principal.role is Role.HOSPITAL_IT else None
    found = repository.search(session, query, hospital_id=hospital_id, limit=MOST_EXPORTED + 1)
    if len(found) > MOST_EXPORTED:
        raise TooMuchError(f"More than {MOST_EXPORTED:,} entries match: give a shorter time, or a subject.")
    record(
        session,
        subject="audit:export",
        actor=principal.actor,
        action="audit.exported",
        data={"entries": len(found), **wanted},
    )
    return [_view(entry, name) for entry, name in found]


def actions(session: Session, principal: Principal) -> list[str]:
    """Return every action that was ever recorded, for a choice."""
    _require_reader(principal)
    return repository.actions(session)


def _require_reader(principal: Principal) -> None:
    if principal.role not in _AUDIT_READERS:
        raise ForbiddenError("Your role does not read the audit; ask an auditor.")
    if principal.role is Role.HOSPITAL_IT and not principal.hospital_id:
        raise ForbiddenError("Your account belongs to no hospital; ask an administrator.")


def _view(entry: AuditEntry, name: str | None) -> AuditView:
    return AuditView(
        id=entry.id or 0,
        subject=entry.subject,
        seq=entry.seq,
        at=entry.at,
        actor=entry.actor,
        actor_name=name or entry.actor,
        action=entry.action,
        data=entry.data,
    )


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _hash(entry: AuditEntry) -> str:
    content = {
        "subject": entry.subject,
        "seq": entry.seq,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "data": entry.data,
        "previous": entry.previous_hash,
    }
    return hashlib.sha256(_canonical(content)).hexdigest()


def _head(entry: AuditEntry) -> dict[str, Any]:
    return {"seq": entry.seq, "hash": entry.hash}


def _checkpoint_bytes(row: AuditCheckpoint) -> bytes:
    content = {"at": row.at.isoformat(), "heads": row.heads, "previous": row.previous_signature}
    return b"hematovision/audit-checkpoint/1\n" + _canonical(content)


def _latest_heads(checkpoints: list[AuditCheckpoint]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for row in checkpoints:
        known.update(row.heads)
    return known


def _check_entry(entry: AuditEntry, *, last_seq: int, last_hash: str) -> list[str]:
    place = f"{entry.subject} entry {entry.seq}"
    if entry.seq != last_seq + 1:
        return [f"{place}: entry {last_seq + 1} before it is missing."]
    if entry.previous_hash != last_hash:
        return [f"{place}: does not continue the entry before it."]
    return [] if _hash(entry) == entry.hash else [f"{place}: was changed after it was written."]


def _check_checkpoints(
    checkpoints: list[AuditCheckpoint], hashes: dict[str, dict[int, str]], key: VerifyKey
) -> list[str]:
    problems: list[str] = []
    previous = ""
    for row in checkpoints:
        try:
            key.verify(_checkpoint_bytes(row), row.signature)
        except SignatureInvalidError:
            problems.append(f"Checkpoint {row.id}: its signature is not this centre's.")
        if row.previous_signature != previous:
            problems.append(f"Checkpoint {row.id}: the checkpoint before it is missing or was changed.")
        previous = row.signature
        for subject, head in row.heads.items():
            found = hashes.get(subject, {}).get(head["seq"])
            if found is None:
                problems.append(f"{subject} entry {head['seq']}: is gone, though checkpoint {row.id} holds it.")
            elif found != head["hash"]:
                problems.append(f"{subject} entry {head['seq']}: differs from what checkpoint {row.id} holds.")
    return problems
