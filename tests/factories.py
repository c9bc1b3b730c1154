"""Makes a small centre, a hospital's node and real cases; all crypto is the product's own."""

import base64
import hashlib
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel import SQLModel

from server.accounts.roles import Role
from server.accounts.schemas import Principal
from server.db.session import Database
from server.models import Hospital, Node, User
from server.runtime import Runtime
from server.settings import ServerSettings
from server.vault.file_vault import FileVault
from shared.contracts.analysis import Cell, FieldImage, Flag, FlagEvidence, Quality, Severity, Smear
from shared.contracts.canonical import canonical_bytes
from shared.contracts.case import (
    OVERLAY_PREFIX,
    Blob,
    BlobKind,
    BloodCount,
    CaseBody,
    CaseManifest,
    ClinicalContext,
    Priority,
    Sex,
)
from shared.contracts.enrolment import EnrolmentState, NodeMode
from shared.contracts.ontology import CellClass
from shared.contracts.supplement import SupplementBody, SupplementManifest
from shared.crypto.envelope import CaseKey, EnvelopePrivateKey, EnvelopePublicKey
from shared.crypto.signing import SigningKey
from shared.statistics import differential, share
from shared.storage import MemoryStore

PASSWORD = "correct horse battery staple 7"
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MIX = (
    *[CellClass.NEUTROPHIL] * 12,
    *[CellClass.LYMPHOCYTE] * 5,
    *[CellClass.MONOCYTE] * 2,
    CellClass.EOSINOPHIL,
    CellClass.IMMATURE_GRANULOCYTE,
    CellClass.ERYTHROBLAST,
)
_COLOURS = {
    CellClass.NEUTROPHIL: (120, 80, 160),
    CellClass.LYMPHOCYTE: (70, 50, 140),
    CellClass.MONOCYTE: (100, 90, 170),
    CellClass.EOSINOPHIL: (200, 90, 90),
    CellClass.IMMATURE_GRANULOCYTE: (140, 60, 120),
}


@dataclass(frozen=True)
class NodeIdentity:
    """A hospital's node as a test holds it: with its private keys."""

    hospital_id: str
    node_id: str
    signing: SigningKey = field(default_factory=SigningKey.generate)
    envelope: EnvelopePrivateKey = field(default_factory=EnvelopePrivateKey.generate)


@dataclass(frozen=True)
class Centre:
    """A runtime on a memory store and an embedded database."""

    runtime: Runtime
    store: MemoryStore

    def add_node(self, hospital_id: str, name: str = "") -> NodeIdentity:
        """Add a hospital with an approved node."""
        node = NodeIdentity(hospital_id, f"node-{hospital_id}")
        with self.runtime.database.session() as session:
            session.add(Hospital(id=hospital_id, name=name or f"Hospital {hospital_id.upper()}"))
            session.flush()
            session.add(
                Node(
                    id=node.node_id,
                    hospital_id=hospital_id,
                    mode=NodeMode.TRAINING,
                    state=EnrolmentState.APPROVED,
                    signing_key=node.signing.public.to_base64(),
                    envelope_key=node.envelope.public.to_base64(),
                    flower_key="",
                    fingerprint="",
                    software="test",
                )
            )
        return node

    def add_person(
        self, username: str, role: Role, hospital_id: str | None = None, name: str = "", *,
        password_hash: str | None = None,
    ) -> Principal:  # fmt: skip
        """Add somebody who can sign in with `PASSWORD`; without a ``password_hash`` in no time."""
        user = User(
            username=username,
            display_name=name or username.title(),
            role=role,
            hospital_id=hospital_id,
            password_hash=password_hash or _quick_hash(),
        )
        with self.runtime.database.session() as session:
            session.add(user)
        return Principal(
            user_id=user.id,
            username=user.username,
            display_name=user.display_name,
            role=role,
            hospital_id=hospital_id,
        )


@cache
def _quick_hash() -> str:
    """Hash the one password by Argon2id at its least cost, which checking it then has too.

    The product's own hashing costs a fifth of a second, each time that somebody signs in or signs.
    """
    return Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


@cache
def _empty_database() -> bytes:
    """A database file with every table and no row, made once: over a thousand tests begin with one."""
    with TemporaryDirectory(prefix="hematovision-empty-") as folder:
        file = Path(folder) / "empty.sqlite"
        database = Database(f"sqlite:///{file}")
        SQLModel.metadata.create_all(database.engine)
        database.dispose()
        return file.read_bytes()


def make_centre(folder: Path) -> Centre:
    """Make a centre whose files lie below ``folder``."""
    keys = folder / "keys"
    vault = FileVault.create(keys)
    # People sign in by password alone here; the tests of the second factor turn it on.
    # No case is drawn for a blind read by chance; the tests of those draw all.
    settings = ServerSettings(home=folder, second_factor="nobody", blind_share=0.0)
    file = folder / "centre.sqlite"
    file.write_bytes(_empty_database())
    database = Database(f"sqlite:///{file}")
    store = MemoryStore()
    return Centre(Runtime(settings=settings, database=database, store=store, vault=vault), store)


def new_case_id() -> str:
    """Return a random case id."""
    return "HV-" + "".join(secrets.choice(CROCKFORD) for _ in range(8))


def cell_image(cls: CellClass, size: int = 96) -> bytes:
    """Return a drawn cell as PNG."""
    image = Image.new("RGB", (size, size), (236, 222, 226))
    draw = ImageDraw.Draw(image)
    draw.ellipse((14, 14, size - 14, size - 14), fill=(205, 190, 220))
    colour = _COLOURS.get(cls, (90, 70, 120))
    draw.ellipse((28, 26, size - 40, size - 30), fill=colour)
    draw.ellipse((size - 54, size - 58, size - 24, size - 24), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def field_image(width: int = 320, height: int = 240) -> bytes:
    """Return a plain field as JPEG."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (230, 220, 226)).save(out, "JPEG")
    return out.getvalue()


def make_smear(classes: Sequence[CellClass] = MIX, *, pseudo: bool = False, synthetic: bool = False) -> Smear:
    """Return an analysed smear with one field; every fifth cell is doubtful."""
    cells = tuple(
        Cell.model_validate(
            {
                "id": f"c{number}",
                "field": 0,
                "box": (number % 10 * 30, number // 10 * 30, number % 10 * 30 + 28, number // 10 * 30 + 28),
                "class": cls,
                "probability": 0.6 if number % 5 == 0 else 0.97,
                "prediction_set": (cls, CellClass.MONOCYTE) if number % 5 == 0 else (cls,),
                "ood_score": 0.3,
                "source": f"cell-c{number}.png",
            }
        )
        for number, cls in enumerate(classes, start=1)
    )
    immature = [cell.id for cell in cells if cell.cls is CellClass.IMMATURE_GRANULOCYTE]
    white = sum(cell.cls.info.counts for cell in cells)
    part = share(len(immature), white)
    return Smear(
        id=f"smear-{secrets.token_hex(4)}",
        fields=(FieldImage(path="field-0.jpg", width=320, height=240),),
        cells=cells,
        differential=differential(cell.cls for cell in cells),
        flags=(
            Flag(
                id="immature.granulocytes",
                severity=Severity.URGENT,
                evidence=FlagEvidence(
                    text=f"{len(immature)} of {white} white cells are immature granulocytes",
                    cells=tuple(immature),
                    count=len(immature),
                    total=white,
                    percent=part.percent,
                    low=part.low,
                    high=part.high,
                    threshold=2.0,
                ),
            ),
            Flag(
                id="too_few_cells",
                severity=Severity.ROUTINE,
                evidence=FlagEvidence(text="Fewer than 100 white cells were found", count=white, threshold=100),
                kind="quality",
            ),
        ),
        quality=Quality(white_cells=white, focus=120.0, brightness=228.0, ood_fraction=0.0),
        model_version="m-test-1",
        engine="onnxruntime",
        untrained_classes=(CellClass.BLAST,),
        pseudo=pseudo,
        synthetic=synthetic,
    )


def make_context(pseudonym: str = "ab" * 16) -> ClinicalContext:
    """Return what a reader is told about the patient."""
    return ClinicalContext(
        patient_pseudonym=pseudonym,
        age_band="60-69",
        sex=Sex.FEMALE,
        question="Leukocytosis of unknown cause?",
        blood_count=BloodCount(wbc_10e9_l=21.4, hb_g_l=88, plt_10e9_l=340, mcv_fl=91),
        scanner_alias="scanner-1",
        phone="+00 000 0000",
    )


@dataclass
class Parcel:
    """A case's objects by their path below the case's prefix."""

    case_id: str
    hospital_id: str
    objects: dict[str, bytes]
    request_id: str = ""
    """Of a supplement."""

    @property
    def prefix(self) -> str:
        """Where it lies."""
        place = f"cases/{self.hospital_id}/{self.case_id}"
        return f"{place}/supplements/{self.request_id}" if self.request_id else place

    def upload(self, store: MemoryStore) -> None:
        """Put all of it into the store, the manifest last."""
        for name in sorted(self.objects, key=lambda name: name == "manifest.json"):
            store.put(f"{self.prefix}/{name}", self.objects[name])


def pack(
    node: NodeIdentity,
    receiver: EnvelopePublicKey,
    *,
    smear: Smear | None = None,
    context: ClinicalContext | None = None,
    priority: Priority = Priority.URGENT,
    case_id: str | None = None,
    signer: SigningKey | None = None,
    images: Mapping[str, bytes] | None = None,
    request_id: str = "",
    first_field: int = 0,
) -> Parcel:
    """Pack, encrypt and sign a case as a node does; ``images`` by blob name, drawn ones where none is given.

    With a ``request_id`` it is a supplement: ``smear`` holds what joins the case behind its ``first_field`` fields.
    """
    images = images or {}
    smear, case_id = smear or make_smear(), case_id or new_case_id()
    key = CaseKey.generate(case_id)
    objects: dict[str, bytes] = {}

    def seal(name: str, kind: BlobKind, media_type: str, plain: bytes) -> Blob:
        cipher = key.encrypt(name, plain)
        objects[f"blobs/{name}"] = cipher
        digest = hashlib.sha256(cipher).hexdigest()
        return Blob(name=name, kind=kind, sha256=digest, size=len(cipher), media_type=media_type)

    blobs = [
        seal(item.path, BlobKind.FIELD, "image/jpeg", images.get(item.path) or field_image()) for item in smear.fields
    ]
    blobs += [
        seal(name, BlobKind.CELL, "image/png", images.get(name) or cell_image(cell.cls))
        for cell in smear.cells
        if (name := cell.source or "")
    ]
    overlays = [name for name in images if name.startswith(OVERLAY_PREFIX)]
    blobs += [seal(name, BlobKind.CELL, "image/png", images[name]) for name in overlays]
    body = (
        SupplementBody(smear=smear, first_field=first_field)
        if request_id
        else CaseBody(smear=smear, context=context or make_context())
    )
    body_blob = seal("body-json", BlobKind.BODY, "application/json", body.model_dump_json(by_alias=True).encode())
    objects["key.json"] = json.dumps({"sealed": base64.b64encode(key.seal_to(receiver)).decode()}).encode()
    manifest = CaseManifest(
        case_id=case_id,
        hospital_id=node.hospital_id,
        node_id=node.node_id,
        priority=priority,
        created_at=datetime.now(UTC),
        model_version=smear.model_version,
        body=body_blob,
        blobs=tuple(blobs),
        key_sha256=hashlib.sha256(objects["key.json"]).hexdigest(),
    )
    if request_id:
        manifest = SupplementManifest(**dict(manifest), request_id=request_id)
    signature = (signer or node.signing).sign(canonical_bytes(manifest))
    signed = {"manifest": manifest.model_dump(mode="json", by_alias=True), "signature": signature}
    objects["manifest.json"] = json.dumps(signed).encode()
    return Parcel(case_id, node.hospital_id, objects, request_id)


def centre_key(centre: Centre) -> EnvelopePublicKey:
    """Return the key that cases are sealed to."""
    return EnvelopePublicKey.from_base64(centre.runtime.vault.public_keys().envelope)
