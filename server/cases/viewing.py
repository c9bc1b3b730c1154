"""The images of a case, decrypted in memory: for a page, for a report; and the crop of a cell that a reader marked."""

from collections.abc import Callable, Sequence

from sqlmodel import Session

from server.accounts.schemas import Principal
from server.cases import blobs, pictures
from server.cases import service as cases
from server.cases.sight import SOMETIMES_HIDDEN, sight_of
from server.models import Case, CaseField
from server.runtime import Runtime
from shared.contracts.errors import NotFoundError


def blob(session: Session, runtime: Runtime, principal: Principal, case_id: str, name: str) -> tuple[bytes, str]:
    """Return a case's image, decrypted in memory, and its media type."""
    case = cases.visible_case(session, principal, case_id)
    if name.startswith(SOMETIMES_HIDDEN) and not sight_of(session, principal, case).shows_image(name):
        raise NotFoundError("The case has no such image.")
    return blobs.read(runtime, case, name, actor=principal.actor)


def images(session: Session, runtime: Runtime, principal: Principal, case_id: str, names: Sequence[str]) -> list[bytes]:
    """Return many of a case's images at once, decrypted in memory; empty where one cannot be had."""
    case = cases.visible_case(session, principal, case_id)
    sight = sight_of(session, principal, case)
    shown = [name for name in names if not name.startswith(SOMETIMES_HIDDEN) or sight.shows_image(name)]
    found = dict(zip(shown, blobs.read_many(runtime, case, shown, actor=principal.actor), strict=True))
    return [found.get(name, b"") for name in names]


def field_tile(
    session: Session,
    runtime: Runtime,
    principal: Principal,
    case_id: str,
    index: int,
    place: pictures.TilePlace,
) -> bytes:
    """Return one tile of a field (JPEG), cut from the image decrypted in memory."""
    case = cases.visible_case(session, principal, case_id)
    return pictures.tile(runtime, case, cases.field_of(session, case_id, index), place, actor=principal.actor)


def keep_crop(runtime: Runtime, case: Case, field: CaseField, box: pictures.Box, *, actor: str) -> str:
    """Cut a cell that a reader marked from its field, in memory, keep it encrypted like the others; return its name."""
    return blobs.keep_marked(runtime, case, pictures.crop(runtime, case, field, box, actor=actor), actor=actor)


def images_of(runtime: Runtime, case: Case, *, actor: str) -> Callable[[str], tuple[bytes, str]]:
    """Return a function that reads a case's images, for a report."""
    return blobs.reader(runtime, case, actor=actor)
