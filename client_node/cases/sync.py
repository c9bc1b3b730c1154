"""Sends what is in the outbox: parts by granted addresses, the manifest last, then the commit and the receipt.

Each step is noted before the next begins, and each can be repeated: killed at any point, the sending goes on where it
was, with the same bytes under the same names, and the centre ends up with exactly one case.
"""

import fcntl
import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import structlog

from client_node.cases.bundle import MANIFEST, Part, pack
from client_node.cases.ledger import Ledger
from client_node.cases.outbox import Outbox, Outgoing, SendState
from client_node.centre import Centre, is_loopback, send
from client_node.home import NodeHome
from shared.contracts.errors import ConflictError, HematovisionError, ServiceUnavailableError

_GRANT_CHUNK: Final = 400
_TIMEOUT: Final = httpx.Timeout(120.0, connect=10.0)
_COMMIT_AGAIN: Final = timedelta(seconds=60)

log = structlog.get_logger(__name__)


class Sender:
    """Sends the outbox of one node; one process at a time does."""

    def __init__(self, home: NodeHome | Path, centre: Centre) -> None:
        self._home = NodeHome(home)
        self._centre = centre
        self._outbox = Outbox(self._home)
        self._ledger = Ledger(self._home)

    def flush(self) -> int:
        """Take every due case as far as it goes; return how many the centre has received by this call.

        A case that fails is tried again later; it never keeps the others back.
        """
        received = 0
        with self._alone() as alone:
            for case in self._outbox.due() if alone else ():
                try:
                    received += self._advance(case) is SendState.RECEIVED
                except HematovisionError as error:
                    self._outbox.failed(case.case_id, error.message)
                    log.warning("case.not_sent", case_id=case.case_id, code=error.code)
                except (OSError, KeyError) as error:  # a file of the parcel, or an address among the grants, is missing
                    self._outbox.failed(case.case_id, "The case could not be read or sent: see the agent's log.")
                    log.exception("case.not_sent", case_id=case.case_id, kind=type(error).__name__)
        return received

    def _advance(self, case: Outgoing) -> SendState:
        state = case.state
        if state is SendState.QUEUED:
            parts = pack(
                self._home, case_id=case.case_id, smear_id=case.smear_id, context=case.context, priority=case.priority
            )
            self._outbox.packed(case.case_id, parts)
            state = SendState.PACKED
        if state is SendState.PACKED:
            state = self._upload(case.case_id)
        if state is SendState.UPLOADED:
            self._centre.commit(case.case_id)
            self._outbox.move(case.case_id, SendState.COMMITTED)
            state = SendState.COMMITTED
        return self._receipt(case) if state is SendState.COMMITTED else state

    def _upload(self, case_id: str) -> SendState:
        missing = self._outbox.missing(case_id)
        for begin in range(0, len(missing), _GRANT_CHUNK):
            chunk = missing[begin : begin + _GRANT_CHUNK]
            try:
                urls = self._centre.grants(case_id, tuple(part.name for part in chunk)).urls
            except ConflictError:  # it was taken in already: the last answer was lost
                self._outbox.move(case_id, SendState.COMMITTED)
                return SendState.COMMITTED
            for part in chunk:
                self._put(case_id, part, urls[part.name])
        self._outbox.move(case_id, SendState.UPLOADED)
        return SendState.UPLOADED

    def _put(self, case_id: str, part: Part, url: str) -> None:
        if part.name == MANIFEST and len(self._outbox.missing(case_id)) != 1:
            raise ServiceUnavailableError("The manifest is sent last.")
        content = (self._home.parcels / case_id / part.name).read_bytes()
        self._ledger.record_once(kind="case", subject=case_id, what=part.name, size=part.size, sha256=part.sha256)
        http = self._store(url)
        response = send(http, http.build_request("PUT", url, content=content))
        if not response.is_success:
            raise ServiceUnavailableError(f"The centre's store answered with status {response.status_code}.")
        self._outbox.uploaded(case_id, part.name)

    def _receipt(self, case: Outgoing) -> SendState:
        receipt = self._centre.receipt(case.case_id)
        if receipt.problem:
            self._outbox.move(case.case_id, SendState.QUARANTINED, problem=receipt.problem)
            log.error("case.quarantined", case_id=case.case_id)
            return SendState.QUARANTINED
        if receipt.state is None:
            if case.state is SendState.COMMITTED and datetime.now(UTC) - case.changed_at > _COMMIT_AGAIN:
                self._outbox.move(case.case_id, SendState.UPLOADED)
            return SendState.COMMITTED
        self._outbox.move(case.case_id, SendState.RECEIVED)
        shutil.rmtree(self._home.parcels / case.case_id, ignore_errors=True)
        log.info("case.received", case_id=case.case_id)
        return SendState.RECEIVED

    def _store(self, url: str) -> httpx.Client:
        """The client for the object store: as trusted as any web server, or under the centre's own CA."""
        if self._store_client is None:
            context = ssl.create_default_context()
            context.load_verify_locations(cafile=str(self._home.ca))
            self._store_client = httpx.Client(verify=context, timeout=_TIMEOUT, trust_env=not is_loopback(url))
        return self._store_client

    _store_client: httpx.Client | None = None

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        self._home.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._home.run / "outbox.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            alone = True
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False
            yield alone
        finally:
            os.close(handle)
            if self._store_client is not None:
                self._store_client.close()
                self._store_client = None
