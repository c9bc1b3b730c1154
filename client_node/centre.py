"""The node's HTTP client to the centre: outbound only, the centre's CA pinned, every request signed."""

import hashlib
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from client_node.cases.ledger import Ledger
from client_node.home import NodeHome
from client_node.keys import read_signing_key
from shared import addresses
from shared.contracts.case import CaseReceipt, GrantRequest, Grants
from shared.contracts.enrolment import (
    EnrolmentRequest,
    EnrolmentStatus,
    Heartbeat,
    HeartbeatReply,
    ServerKeys,
)
from shared.contracts.errors import (
    ConfigError,
    KitOtherServerError,
    NotFoundError,
    ServiceUnavailableError,
    error_from_code,
)
from shared.contracts.model_card import SignedModelCard
from shared.contracts.report import Acknowledgement, ModelDecision, ReportNotice
from shared.contracts.supplement import MoreAnswer, SignedMoreRequest
from shared.contracts.training import Census
from shared.crypto.signing import SigningKey
from shared.crypto.tokens import PROOF_HEADER, make_proof

API: Final = "/api/node/v1"
_TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)
_NOTICES: TypeAdapter[tuple[ReportNotice, ...]] = TypeAdapter(tuple[ReportNotice, ...])
_REQUESTS: TypeAdapter[tuple[SignedMoreRequest, ...]] = TypeAdapter(tuple[SignedMoreRequest, ...])
Answer = TypeVar("Answer", bound=BaseModel)


class Centre:
    """The node API as methods; keeps one connection open. Thread-safe as httpx's client is.

    All methods raise `ServiceUnavailableError` if the centre cannot be reached, and otherwise the error that the centre
    answered with. What they send, heartbeats apart, is written to the ledger first.
    """

    def __init__(self, home: NodeHome, *, url: str, server_id: str, node_id: str, key: SigningKey) -> None:
        self._node_id = node_id
        self._server_id = server_id
        self._key = key
        self._ledger = Ledger(home)
        self._http = httpx.Client(
            base_url=url, verify=tls_context(url, home.ca), timeout=_TIMEOUT, trust_env=not is_loopback(url)
        )
        self.clock_skew: float | None = None
        """Seconds by which the centre's clock is ahead, by its last answer."""

    @classmethod
    def of(cls, home: NodeHome | Path) -> Self:
        """Return the client of an initialised node.

        Raises:
            ConfigError: the home is not initialised, or a key cannot be read.
        """
        place = NodeHome(home)
        config = place.config()
        key = read_signing_key(place)
        return cls(place, url=config.server_url, server_id=config.server_id, node_id=config.node_id, key=key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def enrol(self, request: EnrolmentRequest) -> EnrolmentStatus:
        """Ask to join."""
        path = f"{API}/enrolments"
        return self._post(path, request, EnrolmentStatus, kind="enrolment", subject=request.hospital_id)

    def enrolment(self, node_id: str) -> EnrolmentStatus:
        """Return where this node's enrolment stands."""
        return self._get(f"{API}/enrolments/{quote(node_id)}", EnrolmentStatus)

    def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatReply:
        """Say that this node lives, and learn what waits for it."""
        return self._post(f"{API}/heartbeat", heartbeat, HeartbeatReply, kind=None, subject="")

    def post_census(self, census: Census) -> None:
        """Tell the counts of labels."""
        self._send(f"{API}/census", census, kind="census", subject="census")

    def grants(self, case_id: str, names: tuple[str, ...]) -> Grants:
        """Return upload addresses for parts of a case."""
        request = GrantRequest(names=names)
        return self._post(f"{API}/cases/{case_id}/grants", request, Grants, kind=None, subject=case_id)

    def commit(self, case_id: str) -> None:
        """Tell that all parts of a case, the manifest last, are uploaded."""
        self._request("POST", f"{API}/cases/{case_id}/commit", b"")

    def receipt(self, case_id: str) -> CaseReceipt:
        """Return where a case stands."""
        return self._get(f"{API}/cases/{case_id}", CaseReceipt)

    def more_requests(self) -> tuple[SignedMoreRequest, ...]:
        """Return the requests for more of a smear that wait for this node."""
        answer = self._request("GET", f"{API}/requests").content
        try:
            return _REQUESTS.validate_json(answer)
        except ValidationError:
            raise _misunderstood() from None

    def answer_more(self, request_id: str, said: MoreAnswer) -> None:
        """Tell whether this node looks further."""
        self._send(f"{API}/requests/{quote(request_id)}/answer", said, kind="answer", subject=request_id)

    def more_grants(self, request_id: str, names: tuple[str, ...]) -> Grants:
        """Return upload addresses for parts of a supplement."""
        path = f"{API}/requests/{quote(request_id)}/grants"
        return self._post(path, GrantRequest(names=names), Grants, kind=None, subject=request_id)

    def commit_more(self, request_id: str) -> None:
        """Tell that all parts of a supplement, the manifest last, are uploaded."""
        self._request("POST", f"{API}/requests/{quote(request_id)}/commit", b"")

    def reports(self) -> tuple[ReportNotice, ...]:
        """Return the reports that wait for this hospital."""
        answer = self._request("GET", f"{API}/reports").content
        try:
            return _NOTICES.validate_json(answer)
        except ValidationError:
            raise _misunderstood() from None

    def report_content(self, report_id: str) -> bytes:
        """Return a sealed report bundle."""
        return self._request("GET", f"{API}/reports/{quote(report_id)}/content").content

    def acknowledge(self, report_id: str, acknowledgement: Acknowledgement) -> None:
        """Tell that a report is verified and stored."""
        path = f"{API}/reports/{quote(report_id)}/acknowledgement"
        self._send(path, acknowledgement, kind="acknowledgement", subject=report_id)

    def current_model(self) -> SignedModelCard | None:
        """Return the promoted model's card, or None while there is none."""
        try:
            return self._get(f"{API}/models/current", SignedModelCard)
        except NotFoundError:
            return None

    def artefact(self, version: str, name: str) -> bytes:
        """Return one file of a model version; the caller checks its hash."""
        return self._request("GET", f"{API}/models/{quote(version)}/artefacts/{quote(name)}").content

    def base(self, base_sha256: str) -> bytes:
        """Return the pretrained network that a run names; whoever loads it checks its hash."""
        return self._request("GET", f"{API}/bases/{quote(base_sha256)}").content

    def decide(self, decision: ModelDecision) -> None:
        """Tell what this node did with a promoted model."""
        path = f"{API}/models/{quote(decision.version)}/decision"
        self._send(path, decision, kind="decision", subject=decision.version)

    def _get(self, path: str, answer: type[Answer]) -> Answer:
        return _parsed(self._request("GET", path).content, answer)

    def _post(self, path: str, body: BaseModel, answer: type[Answer], *, kind: str | None, subject: str) -> Answer:
        return _parsed(self._send(path, body, kind=kind, subject=subject), answer)

    def _send(self, path: str, body: BaseModel, *, kind: str | None, subject: str) -> bytes:
        data = body.model_dump_json(by_alias=True).encode()
        if kind is not None:
            digest = hashlib.sha256(data).hexdigest()
            self._ledger.record(kind=kind, subject=subject, what=path, size=len(data), sha256=digest)
        return self._request("POST", path, data).content

    def _request(self, method: str, path: str, body: bytes = b"") -> httpx.Response:
        request = self._http.build_request(method, path, content=body or None)
        sent = request.url.raw_path.decode()
        proof = make_proof(
            self._key, node_id=self._node_id, server_id=self._server_id, method=method, path=sent, body=body
        )
        request.headers[PROOF_HEADER] = proof
        if body:
            request.headers["Content-Type"] = "application/json"
        response = send(self._http, request)
        self._note_clock(response)
        if response.is_success:
            return response
        raise _refusal(response)

    def _note_clock(self, response: httpx.Response) -> None:
        date = response.headers.get("Date")
        if date:
            self.clock_skew = (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds()


def send(http: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Send one request, with a clear error where nobody (or somebody else) answers."""
    host = request.url.host
    try:
        return http.send(request)
    except httpx.ConnectError as error:
        if "CERTIFICATE" in str(error).upper():
            raise KitOtherServerError(
                f"The server at {host} is not the one that this node's kit came from: its certificate does not match. "
                "Ask the coordinator for a new kit."
            ) from None
        raise ServiceUnavailableError(f"The centre at {host} does not answer: check the network, then retry.") from None
    except httpx.TimeoutException:
        raise ServiceUnavailableError(f"The centre at {host} did not answer in time: retry later.") from None
    except httpx.HTTPError:
        raise ServiceUnavailableError(f"The connection to the centre at {host} broke off: retry.") from None


def tls_context(url: str, ca: Path) -> ssl.SSLContext | bool:
    """Return what to trust: only the pinned CA. Plain HTTP is for loopback alone.

    Raises:
        ConfigError: the address is plain HTTP elsewhere, or the CA's certificate is missing.
    """
    if urlsplit(url).scheme != "https":
        if not is_loopback(url):
            raise ConfigError("The centre's address must begin with https://; ask the coordinator for a new kit.")
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError):
        raise ConfigError("keys/ca.crt is missing or damaged: restore it, or enrol this node again.") from None


def read_server_keys(home: NodeHome) -> ServerKeys:
    """Return the centre's pinned public keys, or raise `ConfigError`."""
    try:
        return ServerKeys.model_validate_json(home.server_keys.read_bytes())
    except (OSError, ValidationError):
        raise ConfigError("keys/server_keys.json cannot be read: restore it, or enrol this node again.") from None


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    return addresses.is_loopback(urlsplit(url).hostname or "")


def _parsed(content: bytes, answer: type[Answer]) -> Answer:
    try:
        return answer.model_validate_json(content)
    except ValidationError:
        raise _misunderstood() from None


def _misunderstood() -> ServiceUnavailableError:
    return ServiceUnavailableError("The centre's answer is not understood: both sides need matching software versions.")


def _refusal(response: httpx.Response) -> Exception:
    try:
        problem = response.json()
        return error_from_code(str(problem["code"]), str(problem["message"]))
    except (ValueError, KeyError, TypeError):
        return ServiceUnavailableError(f"The centre answered with status {response.status_code}: retry later.")
