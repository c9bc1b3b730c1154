"""How a node joins: read the kit, make the keys here, send their public halves, wait to be approved.

Every step may be repeated: `init` run again after a crash or a failed network goes on with the same keys.
`node.toml` is written once the centre has accepted the request; the note `keys/enrolment.json` stands from the
first step until the approval, and tells a home that is half-way from one that is done.
"""

import errno
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client_node.centre import Centre
from client_node.home import NodeConfig, NodeHome
from client_node.keys import read_signing_key
from client_node.policy import remove_default_policy, write_default_policy
from client_node.supernode import trusted_entities
from shared.contracts.canonical import canonical_bytes
from shared.contracts.enrolment import EnrolmentRequest, EnrolmentState, EnrolmentStatus, Kit, NodeKeys, NodeMode
from shared.contracts.errors import (
    ConflictError,
    DataInvalidError,
    KitExpiredError,
    KitInvalidError,
    KitOtherServerError,
    KitUsedError,
    NoSpaceError,
    NotApprovedError,
    ServiceUnavailableError,
    SignatureInvalidError,
)
from shared.crypto.envelope import EnvelopePrivateKey
from shared.crypto.pki import flower_key, write_private
from shared.crypto.signing import SigningKey, VerifyKey, fingerprint

_MAX_KIT: Final = 256 * 1024
_SECRET_BYTES: Final = 32


class InitOutput(BaseModel):
    """The JSON of `init`."""

    model_config = ConfigDict(frozen=True)

    home: Path
    node_id: str
    hospital_id: str
    mode: NodeMode
    state: EnrolmentState
    fingerprint: str


class _Note(BaseModel):
    """`keys/enrolment.json`: which enrolment is under way here."""

    hospital_id: str
    server_id: str
    mode: NodeMode


def read_kit(path: Path, *, now: datetime | None = None, fresh: bool = True) -> Kit:
    """Read and check a kit; ``fresh`` asks for one that can still be used.

    Raises:
        KitInvalidError: it is damaged, was changed, or is no kit.
        KitExpiredError: its date is past.
    """
    try:
        if path.stat().st_size > _MAX_KIT:
            raise KitInvalidError(f"{path.name} is too large to be an enrolment kit.")
        kit = Kit.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise KitInvalidError(f"There is no kit at {path}: check the path.") from None
    except OSError:
        raise KitInvalidError(f"The kit {path} cannot be read: check its permissions.") from None
    except ValidationError:
        raise KitInvalidError(
            f"{path.name} is damaged or is no enrolment kit: ask the coordinator for it again."
        ) from None
    try:
        key = VerifyKey.from_base64(kit.keys.signing)
        key.verify(canonical_bytes(kit.model_copy(update={"signature": ""})), kit.signature)
    except (SignatureInvalidError, DataInvalidError):
        raise KitInvalidError(
            f"{path.name} was changed after it was made: ask the coordinator for a new kit."
        ) from None
    if kit.server_id != fingerprint(kit.keys.signing):
        raise KitOtherServerError(f"{path.name} names another server than the one that signed it: ask for a new kit.")
    if fresh and kit.expires_at <= (now or datetime.now(UTC)):
        raise KitExpiredError(
            f"This kit expired on {kit.expires_at:%Y-%m-%d %H:%M} UTC: ask the coordinator for a new one."
        )
    return kit


def init(home: NodeHome, kit_path: Path, *, mode: NodeMode) -> InitOutput:
    """Make ``home`` the home of a node and ask to join; go on where an earlier call broke off.

    Raises:
        KitInvalidError, KitExpiredError, KitUsedError, KitOtherServerError: as they say.
        ConflictError: the home belongs to a node already, or to another enrolment.
        ServiceUnavailableError: the centre cannot be reached; run it again later.
    """
    note = _read_note(home)
    if home.initialised and note is None:
        raise ConflictError(
            f"{home.path} is the home of node {home.config().node_id} already: choose another folder with --home."
        )
    kit = read_kit(kit_path, fresh=not home.initialised)
    if note is not None and (note.hospital_id, note.server_id) != (kit.hospital_id, kit.server_id):
        raise ConflictError(f"Another enrolment was begun in {home.path}: use its kit, or another folder with --home.")
    if home.initialised:
        with suppress(NotApprovedError):  # a rejected node may ask again with a new kit
            return enrolment_status(home)
    mode = note.mode if note is not None else mode
    _prepare(home, kit, mode)
    try:
        status = _request(home, kit, mode)
    except (KitInvalidError, KitExpiredError, KitUsedError, KitOtherServerError):
        if not home.initialised:
            _forget(home, kit)
        raise
    config = NodeConfig(
        hospital_id=kit.hospital_id, hospital_name=kit.hospital_name, node_id=status.node_id, mode=mode,
        server_url=kit.server_url, server_id=kit.server_id, superlink=status.superlink, enrolled_at=datetime.now(UTC),
    )  # fmt: skip
    home.write_config(config)
    return _finish(home, config, status)


def enrolment_status(home: NodeHome) -> InitOutput:
    """Ask the centre where this node's enrolment stands; note an approval.

    Raises:
        NotApprovedError: a coordinator rejected or revoked it.
    """
    config = home.config()
    with Centre.of(home) as centre:
        status = centre.enrolment(config.node_id)
    return _finish(home, config, status)


def wait_approved(home: NodeHome, *, poll: float = 2.0, told: Callable[[InitOutput], None] | None = None) -> InitOutput:
    """Ask every ``poll`` seconds until a coordinator has approved; a centre that is away meanwhile is no error."""
    while True:
        try:
            output = enrolment_status(home)
        except ServiceUnavailableError:
            output = None
        if output is not None:
            if told is not None:
                told(output)
            if output.state is EnrolmentState.APPROVED:
                return output
        time.sleep(poll)


def public_keys(home: NodeHome) -> NodeKeys:
    """Return the public halves of the node's keys."""
    envelope = EnvelopePrivateKey.from_pem(home.envelope_key.read_bytes())
    return NodeKeys(
        signing=read_signing_key(home).public.to_base64(),
        envelope=envelope.public.to_base64(),
        flower=home.flower_key.with_suffix(".pub").read_text().strip(),
    )


def own_fingerprint(home: NodeHome) -> str:
    """Return what two people compare: made here, from the keys here."""
    keys = public_keys(home)
    return fingerprint(keys.signing, keys.envelope, keys.flower)


def software() -> str:
    """Return the version of this software."""
    try:
        return f"hematovision {version('hematovision')}"
    except PackageNotFoundError:  # run from a source tree
        return "hematovision 0.1.0+source"


def _prepare(home: NodeHome, kit: Kit, mode: NodeMode) -> None:
    try:
        for folder in (
            home.path,
            home.keys,
            home.run,
            home.logs,
            home.smears,
            home.reports,
            home.incoming,
            home.models,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.keys.chmod(0o700)
        note = _Note(hospital_id=kit.hospital_id, server_id=kit.server_id, mode=mode)
        write_private(_note_file(home), note.model_dump_json().encode())
        _make_keys(home)
        write_private(home.ca, kit.ca_pem.encode())
        write_private(home.server_keys, kit.keys.model_dump_json().encode())
        release = VerifyKey.from_base64(kit.keys.release)
        write_private(home.trusted, trusted_entities(release.to_openssh()).encode())
        write_default_policy(home, release_key=release.key_id)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpaceError(
                f"No space is left for {home.path}: free some, or choose another folder with --home, then run it again."
            ) from None
        raise ConflictError(f"{home.path} cannot be written: choose another folder with --home.") from None


def _forget(home: NodeHome, kit: Kit) -> None:
    """Drop what a refused kit brought, so that a good one can take its place; the node's own keys stay."""
    remove_default_policy(home, release_key=VerifyKey.from_base64(kit.keys.release).key_id)
    for file in (home.ca, home.server_keys, home.trusted, _note_file(home)):
        file.unlink(missing_ok=True)


def _make_keys(home: NodeHome) -> None:
    """Make each key that is not there yet; a private half never leaves this folder."""
    if not home.signing_key.exists():
        write_private(home.signing_key, SigningKey.generate().to_pem())
    if not home.envelope_key.exists():
        write_private(home.envelope_key, EnvelopePrivateKey.generate().to_pem())
    public = home.flower_key.with_suffix(".pub")
    if not (home.flower_key.exists() and public.exists()):
        private, line = flower_key()
        write_private(public, line.encode())
        write_private(home.flower_key, private)
    for secret in (home.pseudonym_key, home.identity_key):
        if not secret.exists():
            write_private(secret, secrets.token_bytes(_SECRET_BYTES))


def _request(home: NodeHome, kit: Kit, mode: NodeMode) -> EnrolmentStatus:
    key = read_signing_key(home)
    request = EnrolmentRequest(
        token=kit.token, hospital_id=kit.hospital_id, keys=public_keys(home), mode=mode, software=software()
    )
    issuer = key.public.key_id  # the node has no id yet; the centre checks the proof with the key in the request
    with Centre(home, url=kit.server_url, server_id=kit.server_id, node_id=issuer, key=key) as centre:
        return centre.enrol(request)


def _finish(home: NodeHome, config: NodeConfig, status: EnrolmentStatus) -> InitOutput:
    own = own_fingerprint(home)
    if status.fingerprint != own:
        raise KitInvalidError("The centre answered for other keys than this node's: stop, and call the coordinator.")
    if status.state in (EnrolmentState.REJECTED, EnrolmentState.REVOKED):
        raise NotApprovedError(f"The coordinator {status.state} this node: ask why, then enrol again with a new kit.")
    if status.state is EnrolmentState.APPROVED:
        if status.superlink and status.superlink != config.superlink:
            home.write_config(config.model_copy(update={"superlink": status.superlink}))
        _note_file(home).unlink(missing_ok=True)
    return InitOutput(
        home=home.path, node_id=status.node_id, hospital_id=status.hospital_id, mode=config.mode, state=status.state,
        fingerprint=own,
    )  # fmt: skip


def _note_file(home: NodeHome) -> Path:
    return home.keys / "enrolment.json"


def _read_note(home: NodeHome) -> _Note | None:
    try:
        return _Note.model_validate_json(_note_file(home).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise ConflictError(f"{home.path} holds a damaged enrolment: choose another folder with --home.") from None
